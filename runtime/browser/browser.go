// SPDX-License-Identifier: Apache-2.0

// Package browser drives a headless Chromium through chromedriver, for tests of
// the pages that Boxer serves. It speaks WebDriver itself: a dozen requests.
package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

const (
	startTime   = 60 * time.Second // a busy machine reads Chromium from the disk
	requestTime = 30 * time.Second
)

// chromiums are the names that Chromium goes by.
var chromiums = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}

// arguments keep Chromium to the pages it is told to open.
var arguments = []string{
	"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
	"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
	"--hide-scrollbars", "--window-size=1280,900",
}

// Browser is one Chromium with one window.
type Browser struct {
	driver  *exec.Cmd
	http    *http.Client
	session string // its address
	dir     string // all that it writes
}

// StartFor starts Chromium for a test, which fails if it does not start or end.
func StartFor(ctx context.Context, t testing.TB) *Browser {
	t.Helper()
	b, err := Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Start starts Chromium. Close ends it.
func Start(ctx context.Context) (*Browser, error) {
	chromium, err := find()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "browser")
	if err != nil {
		return nil, err
	}
	b := &Browser{http: &http.Client{Transport: &http.Transport{}, Timeout: startTime}, dir: dir}
	if err := b.start(ctx, chromium); err != nil {
		return nil, errors.Join(fmt.Errorf("start Chromium: %w", err), b.Close())
	}
	b.http.Timeout = requestTime
	return b, nil
}

func find() (string, error) {
	for _, name := range chromiums {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("none of %q is installed: run make deps", chromiums)
}

func (b *Browser) start(ctx context.Context, chromium string) error {
	b.driver = exec.Command("chromedriver", "--port=0")
	b.driver.Env = append(os.Environ(), "HOME="+b.dir, "TMPDIR="+b.dir)
	b.driver.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // killed with all that it started
	out, err := b.driver.StdoutPipe()
	if err != nil {
		return err
	}
	if err := b.driver.Start(); err != nil {
		b.driver = nil
		return fmt.Errorf("%w: run make deps", err)
	}
	port, err := driverPort(ctx, out)
	if err != nil {
		return err
	}
	b.session = "http://127.0.0.1:" + port
	var answer struct{ SessionID string }
	options := map[string]any{"binary": chromium, "args": append(arguments, "--user-data-dir="+filepath.Join(b.dir, "profile"))}
	err = b.do(ctx, http.MethodPost, "/session", map[string]any{"capabilities": map[string]any{
		"alwaysMatch": map[string]any{"browserName": "chrome", "goog:chromeOptions": options},
	}}, &answer)
	b.session += "/session/" + answer.SessionID
	return err
}

var portLine = regexp.MustCompile(`started successfully on port (\d+)`)

// driverPort reads it from what the driver says, and then lets it talk.
func driverPort(ctx context.Context, out io.Reader) (string, error) {
	found := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := portLine.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
		}
	}()
	select {
	case port := <-found:
		return port, nil
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(startTime):
		return "", fmt.Errorf("chromedriver has no port after %v", startTime)
	}
}

// Close ends Chromium, its driver and all that they have written.
func (b *Browser) Close() error {
	if b.driver != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = b.do(ctx, http.MethodDelete, "", nil, nil)
		_ = syscall.Kill(-b.driver.Process.Pid, syscall.SIGKILL)
		_ = b.driver.Wait()
	}
	b.http.CloseIdleConnections()
	return os.RemoveAll(b.dir)
}

// do sends one request of the session and reads its value into out.
func (b *Browser) do(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, b.session+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct{ Value json.RawMessage }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s %s: %s: %w", method, path, resp.Status, err)
	}
	if resp.StatusCode != http.StatusOK {
		var failure struct{ Error, Message string }
		_ = json.Unmarshal(answer.Value, &failure)
		return fmt.Errorf("%s %s: %s: %s", method, path, failure.Error, failure.Message)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer.Value, out)
}

// Open goes to an address and returns when its page is loaded.
func (b *Browser) Open(ctx context.Context, url string) error {
	return b.do(ctx, http.MethodPost, "/url", map[string]any{"url": url}, nil)
}

// Run runs the body of a function in the page and reads what it returns into out.
func (b *Browser) Run(ctx context.Context, out any, script string, args ...any) error {
	if args == nil {
		args = []any{}
	}
	return b.do(ctx, http.MethodPost, "/execute/sync", map[string]any{"script": script, "args": args}, out)
}

// Text is what the first element of a CSS selector says, on one line; "" if there is none.
func (b *Browser) Text(ctx context.Context, selector string) (string, error) {
	var text string
	err := b.Run(ctx, &text, `const e = document.querySelector(arguments[0]); return e ? e.textContent.replace(/\s+/g, ' ').trim() : ''`, selector)
	return text, err
}

// DevTools sends a command of Chromium's own protocol.
func (b *Browser) DevTools(ctx context.Context, out any, command string, params map[string]any) error {
	if params == nil {
		params = map[string]any{}
	}
	return b.do(ctx, http.MethodPost, "/goog/cdp/execute", map[string]any{"cmd": command, "params": params}, out)
}

// Resize makes the page see a window of this size, at so many device pixels per pixel.
func (b *Browser) Resize(ctx context.Context, width, height int, scale float64) error {
	return b.DevTools(ctx, nil, "Emulation.setDeviceMetricsOverride", map[string]any{
		"width": width, "height": height, "deviceScaleFactor": scale, "mobile": false,
	})
}

// Dark chooses the dark or the light colours of the page.
func (b *Browser) Dark(ctx context.Context, dark bool) error {
	value := "light"
	if dark {
		value = "dark"
	}
	return b.DevTools(ctx, nil, "Emulation.setEmulatedMedia", map[string]any{
		"features": []map[string]string{{"name": "prefers-color-scheme", "value": value}},
	})
}

// Scripts switches JavaScript on or off for pages opened from now on. Run works
// all the same.
func (b *Browser) Scripts(ctx context.Context, on bool) error {
	return b.DevTools(ctx, nil, "Emulation.setScriptExecutionDisabled", map[string]any{"value": !on})
}

// Screenshot is the window as PNG.
func (b *Browser) Screenshot(ctx context.Context) ([]byte, error) {
	var data string
	if err := b.do(ctx, http.MethodGet, "/screenshot", nil, &data); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(data)
}
