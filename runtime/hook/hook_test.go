// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/controller"
)

// network has one node, of 1 to 5 replicas.
type network struct{ count int }

func (n *network) View(_ context.Context, name string) (controller.View, error) {
	switch name {
	case "logic":
		return controller.View{Name: name, Count: n.count, Min: 1, Max: 5}, nil
	case "electing":
		return controller.View{}, fmt.Errorf("ask: %w", cluster.ErrUnavailable)
	case "broken":
		return controller.View{}, errors.New("the disk is on fire")
	}
	return controller.View{}, &cluster.RemoteError{Code: controller.ErrNotDeclared.Code, Message: "nobody keeps it"}
}

func (n *network) Scale(ctx context.Context, name string, count int) (controller.View, error) {
	v, err := n.View(ctx, name)
	if err == nil && (count < 1 || count > 5) {
		return v, &cluster.RemoteError{Code: controller.ErrOutOfRange.Code, Message: "want 1 to 5"}
	}
	if err == nil {
		n.count, v.Count = count, count
	}
	return v, err
}

func serve(t *testing.T) (url string, n *network) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended, n := make(chan error, 1), &network{count: 2}
	go func() { ended <- Serve(ctx, l, "the token of the test", n) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String(), n
}

func TestHook(t *testing.T) {
	url, n := serve(t)
	const bearer = "Bearer the token of the test"
	for _, c := range []struct {
		method, path, body, token, host string
		status                          int
		says                            string
	}{
		{"GET", "/v1/functions/logic", "", bearer, "", 200, `"count":2`},
		{"PUT", "/v1/functions/logic", `{"count": 4}`, bearer, "", 200, `"count":4`},
		{"GET", "/v1/functions/logic", "", "bearer the token of the test", "", 200, `"count":4`},
		{"PUT", "/v1/functions/logic", `{"count": 6}`, bearer, "", 422, "want 1 to 5"},
		{"PUT", "/v1/functions/logic", `{"count": 0}`, bearer, "", 422, "want 1 to 5"},
		{"PUT", "/v1/functions/logic", `{}`, bearer, "", 400, "count is missing"},
		{"PUT", "/v1/functions/logic", `{"count": 2, "force": true}`, bearer, "", 400, "unknown field"},
		{"PUT", "/v1/functions/logic", `{"count": 2} {"count": 3}`, bearer, "", 400, "follows"},
		{"PUT", "/v1/functions/logic", `{"count": 1.5}`, bearer, "", 400, "count"},
		{"PUT", "/v1/functions/logic", `{"count": 2` + strings.Repeat(" ", 5000) + `}`, bearer, "", 400, "too large"},
		{"PUT", "/v1/functions/other", `{"count": 2}`, bearer, "", 404, "nobody keeps it"},
		{"GET", "/v1/functions/other", "", bearer, "", 404, "nobody keeps it"},
		{"GET", "/v1/functions/electing", "", bearer, "", 503, "unavailable"},
		{"GET", "/v1/functions/broken", "", bearer, "", 500, "on fire"},
		{"DELETE", "/v1/functions/logic", "", bearer, "", 405, "GET"},
		{"GET", "/v1/functions", "", bearer, "", 404, "/v1/functions/NAME"},
		{"GET", "/v1/functions/logic", "", "", "", 401, "Authorization: Bearer"},
		{"PUT", "/v1/functions/logic", `{"count": 1}`, "Bearer the token", "", 401, "token"},
		{"PUT", "/v1/functions/logic", `{"count": 1}`, "Basic the token of the test", "", 401, "token"},
		{"PUT", "/v1/functions/logic", `{"count": 1}`, bearer, "evil.example", 421, "address"},
	} {
		r, err := http.NewRequest(c.method, url+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.token != "" {
			r.Header.Set("Authorization", c.token)
		}
		r.Host = c.host
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.says) || !json.Valid(body) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, resp.StatusCode, body)
		}
	}
	if n.count != 4 {
		t.Errorf("the count is %d in the end", n.count)
	}
}

func TestToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	made, err := Token(path)
	if err != nil || len(made) < 26 {
		t.Fatalf("%q %v", made, err)
	}
	if again, err := Token(path); err != nil || again != made {
		t.Errorf("%q, then %q: %v", made, again, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Token(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("others may read it: %v", err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte("short\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Token(path); err == nil || !strings.Contains(err.Error(), "too few") {
		t.Errorf("a short one: %v", err)
	}
}

func TestOnlyOnLoopback(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "192.168.1.1:80", "localhost", "example.org:80"} {
		if l, err := Listen(t.Context(), address); err == nil {
			l.Close()
			t.Errorf("%s: served", address)
		}
	}
}
