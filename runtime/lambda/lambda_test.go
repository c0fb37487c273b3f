// SPDX-License-Identifier: Apache-2.0

package lambda

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/node"
)

const (
	roleVariable = "BOXER_TEST_LIBRARY" // set: this process is the function
	seedPort     = 27717
)

func TestMain(m *testing.M) {
	library := os.Getenv(roleVariable)
	if library == "" {
		os.Exit(m.Run())
	}
	err := Run(context.Background(), Options{Library: library, Version: "test", Logger: zerolog.New(os.Stderr)})
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// runtimeAPI speaks Lambda's runtime interface for one function process.
type runtimeAPI struct {
	*http.Server
	address string
	events  chan event
	answers chan answer
}

type event struct {
	payload string
	life    time.Duration
}

type answer struct{ kind, body string }

func newRuntimeAPI(t *testing.T) *runtimeAPI {
	t.Helper()
	api := &runtimeAPI{events: make(chan event, 1), answers: make(chan answer, 1)}
	const root = "/2018-06-01/runtime/invocation/"
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+root+"next", func(w http.ResponseWriter, r *http.Request) {
		select {
		case e := <-api.events:
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", "request-1")
			w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(e.life).UnixMilli(), 10))
			w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:local:0:function:logic")
			_, _ = io.WriteString(w, e.payload)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST "+root+"request-1/{kind}", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
		api.answers <- answer{r.PathValue("kind"), string(body)}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	api.Server = &http.Server{Handler: mux}
	api.address = ln.Addr().String()
	go func() { _ = api.Serve(ln) }()
	t.Cleanup(func() { api.Close() })
	return api
}

func (api *runtimeAPI) invoke(t *testing.T, e event) answer {
	t.Helper()
	api.events <- e
	select {
	case a := <-api.answers:
		return a
	case <-time.After(20 * time.Second):
		t.Fatal("the invocation does not end")
		return answer{}
	}
}

// startFunction runs the test binary as the function, with its output in a file.
func startFunction(t *testing.T, api *runtimeAPI) (output string) {
	t.Helper()
	lib, err := filepath.Abs("../../lib")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("make", "-s", "-C", lib).CombinedOutput(); err != nil {
		t.Fatalf("make libboxer.so: %v: %s", err, out)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+filepath.Join(lib, "build", runtime.GOARCH, "libboxer.so"), apiVariable+"="+api.address, "TMPDIR="+t.TempDir())
	cmd.Stdout, cmd.Stderr = file, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return file.Name()
}

func startSeed(t *testing.T, secretFile string) {
	t.Helper()
	cfg, err := config.New(config.Node{
		Kind: config.KindSeed, Network: "shop", Slot: "seed-0", SecretRef: "file:" + secretFile,
		UnderlayAddress: "127.90.0.1", Port: seedPort,
	})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := cfg.Secret()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := node.Run(ctx, node.Options{Config: cfg, Secret: secret, Logger: zerolog.Nop()}); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func TestOneEventIsOneNodesLife(t *testing.T) {
	secretFile := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secretFile, []byte("a secret of some thirty letters\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	startSeed(t, secretFile)
	api := newRuntimeAPI(t)
	output := startFunction(t, api)
	launch := func(slot string, margin int, script string) string {
		data, err := json.Marshal(config.Node{
			Version: config.Version, Kind: config.KindFunction, Network: "shop", Name: "logic", Slot: slot,
			SecretRef: "file:" + secretFile, SeedEndpoints: []string{fmt.Sprintf("127.90.0.1:%d", seedPort)},
			UnderlayAddress: "127.90.0.2", Port: seedPort, LaunchToken: "of " + slot, DeadlineMarginMS: margin,
			Argv: []string{"sh", "-c", script},
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for _, tt := range []struct {
		name  string
		event event
		kind  string
		want  string
	}{
		{"the guest ends", event{launch("a", 0, "echo working"), time.Minute}, "response", `"reason":"guest","node_id":2,"address":"100.80.0.2","exit_code":0`},
		{"deadline", event{launch("b", 2500, "exec sleep 60"), 4500 * time.Millisecond}, "response", `"reason":"deadline","node_id":3,"address":"100.80.0.3","exit_code":143`},
		{"the guest fails", event{launch("c", 0, "echo no database >&2; exit 3"), time.Minute}, "error", `node \"c\": the guest ended with exit status 3; its last output: no database`},
		{"a repeated event", event{launch("a", 0, "echo again"), time.Minute}, "error", `this launch of \"a\" has ended already`},
		{"a life shorter than its margin", event{launch("e", 0, "echo lives; exec sleep 60"), 3 * time.Second}, "response", `"reason":"deadline","node_id":5,"address":"100.80.0.5","exit_code":143`},
		{"unknown version", event{`{"version": 9}`, time.Minute}, "error", `launch event: node configuration: version 9 is not supported`},
		{"not JSON", event{`now`, time.Minute}, "error", `not JSON`},
		{"not for a function", event{strings.Replace(launch("d", 0, "true"), `"kind":"function"`, `"kind":"vm"`, 1), time.Minute}, "error", `a function runs nodes of kind \"function\" only`},
	} {
		got := api.invoke(t, tt.event)
		if got.kind != tt.kind || !strings.Contains(got.body, tt.want) {
			t.Errorf("%s: %s %s\nwant %s with %s", tt.name, got.kind, got.body, tt.kind, tt.want)
		}
	}
	if data, _ := os.ReadFile(output); string(data) != "working\nno database\nlives\n" {
		t.Errorf("the guests' output is %q", data)
	}
}

func TestOutsideAFunction(t *testing.T) {
	t.Setenv(apiVariable, "")
	if err := Run(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), apiVariable+" is not set") {
		t.Errorf("outside a function: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"kind":"function","network":"shop","slot":"a","argv":["x"],"secret_ref":"file:/x","seed_endpoints":["a:1"]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, event []byte) {
		if cfg, err := parse(event); err == nil && (cfg.Kind != config.KindFunction || len(cfg.Argv) == 0) {
			t.Errorf("%q gives %+v", event, cfg)
		}
	})
}

// Later events of an environment do not ask for the secret again, unless the node of
// the one before failed: it may have been changed.
func TestSecretIsKeptBetweenEvents(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		_, _ = fmt.Fprintf(w, `{"Parameter":{"Value":"a secret of some thirty letters, %d"}}`, asked)
	}))
	defer s.Close()
	t.Setenv("AWS_ENDPOINT_URL_SSM", s.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "key")
	h := &handler{o: Options{Stdout: os.Stdout, Logger: zerolog.Nop()}}
	read := func(ref, want string) {
		t.Helper()
		got, err := h.readSecret(t.Context(), config.Node{Kind: config.KindFunction, SecretRef: ref}, zerolog.Nop())
		if err != nil || !strings.HasSuffix(string(got), want) {
			t.Errorf("%q, %v, want %s", got, err, want)
		}
	}
	read("ssm:eu-west-1/boxer/shop/secret", ", 1")
	read("ssm:eu-west-1/boxer/shop/secret", ", 1")
	read("ssm:eu-west-1/boxer/bank/secret", ", 2")
	// A node that fails at once: it has no place for its files.
	event, err := json.Marshal(config.Node{
		Version: config.Version, Kind: config.KindFunction, Network: "bank", Slot: "a", Argv: []string{"true"}, UnderlayAddress: "127.90.0.9", Port: seedPort,
		SecretRef: "ssm:eu-west-1/boxer/bank/secret", SeedEndpoints: []string{"127.90.0.9:1"}, StateDir: "/proc/none",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Invoke(t.Context(), event); err == nil {
		t.Error("a node without a place lives")
	}
	read("ssm:eu-west-1/boxer/bank/secret", ", 3")
}
