// SPDX-License-Identifier: Apache-2.0

// Package hook lets programs outside a network, such as autoscalers, see and set
// the number of replicas of its function nodes: over HTTP, on loopback, for who
// has the token.
//
//	GET /v1/functions/NAME
//	PUT /v1/functions/NAME  {"count": 5}
package hook

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/boxer-overlay/boxer/runtime/bound"
	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/controller"
)

// Bounds: nobody who reaches the port can make the process wait or grow.
const (
	maxConnections = 64
	maxBody        = 4 << 10
	readTime       = 5 * time.Second
	workTime       = 20 * time.Second // a network may be electing a seed
	idleTime       = 30 * time.Second
	leastToken     = 16 // characters
)

// Source is a network.
type Source interface {
	View(ctx context.Context, name string) (controller.View, error)
	Scale(ctx context.Context, name string, count int) (controller.View, error)
}

// Token reads the token from a file that nobody else may read, and makes one
// where there is none.
func Token(path string) (string, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		token := rand.Text() // 130 bits
		_, err = fmt.Fprintln(file, token)
		return token, errors.Join(err, file.Close())
	}
	if !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make the token: %w: choose another --token-file", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("token %s: mode %v lets others read it: run chmod 600 on it", path, info.Mode())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if len(token) < leastToken {
		return "", fmt.Errorf("token %s: %d characters are too few: write %d or more, at random, or remove the file for a new one", path, len(token), leastToken)
	}
	return token, nil
}

// Listen opens a loopback address, host:port.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := bound.Loopback(ctx, address,
		"the token would be in the clear on a network: use 127.0.0.1 or [::1], and for other machines a proxy with TLS before it", "--listen")
	if err != nil {
		return nil, fmt.Errorf("hook: %w", err)
	}
	return l, nil
}

// Serve answers on l until ctx ends, and then returns nil.
func Serve(ctx context.Context, l net.Listener, token string, source Source) error {
	server := &http.Server{
		Handler:           guard(l.Addr(), token, handler(source)),
		ReadHeaderTimeout: readTime,
		ReadTimeout:       readTime,
		WriteTimeout:      workTime + readTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	if err := bound.HTTP(ctx, l, maxConnections, server); err != nil {
		return fmt.Errorf("hook: %w", err)
	}
	return nil
}

// guard answers only requests that were made to this very address (a name that
// was rebound to loopback has another Host), and that bear the token.
func guard(addr net.Addr, token string, next http.Handler) http.Handler {
	_, port, _ := net.SplitHostPort(addr.String())
	hosts := map[string]bool{addr.String(): true, net.JoinHostPort("localhost", port): true}
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if !hosts[strings.ToLower(r.Host)] {
			refuse(w, http.StatusMisdirectedRequest, "this is not the address that the hook is served at")
			return
		}
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(strings.TrimSpace(given)))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !strings.EqualFold(scheme, "Bearer") {
			w.Header().Set("WWW-Authenticate", `Bearer realm="boxer"`)
			refuse(w, http.StatusUnauthorized, "the token is missing or wrong: send the header Authorization: Bearer TOKEN, with the token of the file that 'boxer hook' has named")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func handler(source Source) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/functions/{name}", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), workTime)
		defer cancel()
		view, err := source.View(ctx, r.PathValue("name"))
		answer(w, view, err)
	})
	mux.HandleFunc("PUT /v1/functions/{name}", func(w http.ResponseWriter, r *http.Request) {
		count, err := wanted(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			refuse(w, http.StatusBadRequest, err.Error())
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), workTime)
		defer cancel()
		view, err := source.Scale(ctx, r.PathValue("name"), count)
		answer(w, view, err)
	})
	mux.HandleFunc("/v1/functions/{name}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", "GET, HEAD, PUT")
		refuse(w, http.StatusMethodNotAllowed, "a function node can be read (GET) and scaled (PUT)")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "there is only /v1/functions/NAME")
	})
	return mux
}

// wanted reads the number of replicas that a PUT asks for.
func wanted(body io.Reader) (int, error) {
	var in struct {
		Count *int `json:"count"`
	}
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	err := d.Decode(&in)
	if err == nil && d.More() {
		err = errors.New("something follows it")
	}
	if err == nil && in.Count == nil {
		err = errors.New("count is missing")
	}
	if err != nil {
		return 0, fmt.Errorf(`the body is not one such as {"count": 5}: %w`, err)
	}
	return *in.Count, nil
}

// answer with a view, or with what kept from it.
func answer(w http.ResponseWriter, view controller.View, err error) {
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(view)
	case errors.Is(err, controller.ErrNotDeclared):
		refuse(w, http.StatusNotFound, err.Error())
	case errors.Is(err, controller.ErrOutOfRange):
		refuse(w, http.StatusUnprocessableEntity, err.Error())
	case cluster.Passing(err) || errors.Is(err, cluster.ErrDisconnected) || errors.Is(err, context.DeadlineExceeded):
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, err.Error())
	default:
		refuse(w, http.StatusInternalServerError, err.Error())
	}
}

func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": why})
}
