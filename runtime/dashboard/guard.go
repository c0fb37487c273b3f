// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
)

// policy lets the page load its own style and script and nothing else; what a
// guest wrote could not run even if it were not escaped.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// guard answers only requests that read, that were made to this very address
// (a name that was rebound to loopback has another Host), and that have the
// token. The token is the first part of the path, in each request: a cookie
// would be shown to every other port of 127.0.0.1.
func guard(addr net.Addr, token string, next http.Handler) http.Handler {
	_, port, _ := net.SplitHostPort(addr.String())
	hosts := map[string]bool{addr.String(): true, net.JoinHostPort("localhost", port): true}
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer") // it would carry the token
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !hosts[strings.ToLower(r.Host)] {
			http.Error(w, "This is not the address that the dashboard is served at.", http.StatusMisdirectedRequest)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "The dashboard only shows.", http.StatusMethodNotAllowed)
			return
		}
		given, rest, found := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		got := sha256.Sum256([]byte(given))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !found {
			http.Error(w, "The token is missing or wrong: open the address that 'boxer dashboard' has printed, all of it.", http.StatusForbidden)
			return
		}
		r2 := r.Clone(r.Context())
		r2.URL.Path, r2.URL.RawPath = "/"+rest, ""
		next.ServeHTTP(w, r2)
	})
}
