// SPDX-License-Identifier: Apache-2.0

// Package emulator is AWS for tests: moto server, which keeps what was made, behind a
// proxy of its own, which says what was asked, has calls fail, and answers for what
// moto lacks (Invoke, recursion settings, a layer's content).
//
// RunNodes has what is launched there run: see Nodes for what is true of it, and what not.
//
// What it cannot show: whether a policy allows a call (everybody may do everything), the
// limits that moto does not check (user data, layers, environments, contents of zips),
// how long AWS takes, and how eventually consistent it is, but for what a test injects.
package emulator

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"
)

// Region and account of everything in the emulator.
const (
	Region  = "us-east-1"
	Account = "123456789012"
)

const startTime = 60 * time.Second

// AWS is one emulated account, empty but for what AWS gives every account.
type AWS struct {
	t       testing.TB
	address string // of the proxy, host:port
	moto    *url.URL
	forward *httputil.ReverseProxy

	mu       sync.Mutex
	calls    []Call
	faults   []*Fault
	layers   map[string][]byte // contents of layers, by their CodeSha256
	loops    map[string]string // recursion settings, by function
	baseline map[string]bool   // objects that were there before the test
	observe  []func(Call, []byte)
	invoke   func(function string, payload []byte)
	change   func(Call, []byte) []byte // of answers, so that they tell of nodes
	metadata http.Handler              // of instances
}

// Start starts an emulator, which ends with the test.
func Start(t testing.TB) *AWS {
	t.Helper()
	a := &AWS{t: t, layers: map[string][]byte{}, loops: map[string]string{}, metadata: http.NotFoundHandler()}
	a.moto = startMoto(t)
	a.forward = httputil.NewSingleHostReverseProxy(a.moto)
	a.forward.ErrorLog = log.New(io.Discard, "", 0) // calls that their client gave up
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("emulator: %v", err)
	}
	a.address = l.Addr().String()
	server := &http.Server{Handler: http.HandlerFunc(a.serve), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	a.Forget()
	return a
}

// URL is where the account is.
func (a *AWS) URL() string { return "http://" + a.address }

// Env is the environment of a program that is to use this account and no other.
func (a *AWS) Env() []string {
	return []string{
		"AWS_ENDPOINT_URL=" + a.URL(),
		"AWS_ACCESS_KEY_ID=AKIAEMULATED00000000", "AWS_SECRET_ACCESS_KEY=emulated", "AWS_SESSION_TOKEN=",
		"AWS_REGION=" + Region, "AWS_DEFAULT_REGION=" + Region,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_PROFILE=",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	}
}

// Setenv gives this process the environment of Env, until the test ends.
func (a *AWS) Setenv(t interface{ Setenv(name, value string) }) {
	for _, variable := range a.Env() {
		name, value, _ := cut(variable)
		t.Setenv(name, value)
	}
}

func cut(variable string) (name, value string, ok bool) {
	for i := range variable {
		if variable[i] == '=' {
			return variable[:i], variable[i+1:], true
		}
	}
	return variable, "", false
}

// program finds what tools/deps.sh has installed.
func program() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			path := filepath.Join(dir, "tools", "bin", "moto_server")
			_, err := os.Stat(path)
			return path, err
		}
	}
	return "", errors.New("not inside the module")
}

var listens = regexp.MustCompile(`Running on (http://127\.0\.0\.1:\d+)`)

var answered = regexp.MustCompile(`" [234]\d\d -$`)

// startMoto starts moto server on a free port. It ends with its standard input, so
// also when this process is killed.
func startMoto(t testing.TB) *url.URL {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatalf("moto server, which emulates AWS, is not installed: %v: run make deps", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, "-H", "127.0.0.1", "-p", "0")
	// Credentials of this machine are nothing that the emulator should see.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return len(v) > 4 && v[:4] == "AWS_" })
	cmd.Env = append(cmd.Env, "MOTO_ACCOUNT_ID="+Account, "PYTHONDONTWRITEBYTECODE=1")
	stdin, err := cmd.StdinPipe()
	var stderr io.ReadCloser
	if err == nil {
		stderr, err = cmd.StderrPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		stop()
		t.Fatalf("start moto server: %v", err)
	}
	found, ended := make(chan string, 1), make(chan struct{})
	var said tail
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if !answered.MatchString(lines.Text()) {
				said.add(lines.Text())
			}
			if match := listens.FindStringSubmatch(lines.Text()); match != nil {
				found <- match[1]
			}
		}
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = stdin.Close()
		stop()
		<-ended
		if t.Failed() {
			t.Logf("moto server said last:\n%s", said.text())
		}
	})
	select {
	case text := <-found:
		at, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	case <-ended:
		t.Fatalf("moto server ended at once:\n%s", said.text())
	case <-time.After(startTime):
		t.Fatalf("moto server did not start within %v:\n%s", startTime, said.text())
	}
	return nil
}

// tail keeps the last lines of what a program says.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (l *tail) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	if len(l.lines) > 40 {
		l.lines = l.lines[1:]
	}
}

func (l *tail) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := ""
	for _, line := range l.lines {
		text += fmt.Sprintln(line)
	}
	return text
}
