// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// runtimeAPIAddress is where Lambda serves its Runtime API inside a sandbox.
const runtimeAPIAddress = "127.0.0.1:9001"

// Bounds of what a function may send, as on Lambda.
const (
	maxResponse = 6 << 20
	maxPayload  = 1 << 20
)

// event is one invocation, as the sandbox's init gets it.
type event struct {
	RequestID   string            `json:"request_id"`
	Function    string            `json:"function"`
	ARN         string            `json:"arn"`
	Slot        string            `json:"slot"`
	MemoryMB    int               `json:"memory_mb"`
	Timeout     time.Duration     `json:"timeout"`
	Deadline    time.Time         `json:"deadline"`
	Payload     []byte            `json:"payload"`
	Environment map[string]string `json:"environment,omitempty"` // the function's own
	API         string            `json:"api"`                   // where the Runtime API is
}

func (e *event) timedOut() string {
	return fmt.Sprintf("Sandbox.Timedout: the function timed out after %s", e.Timeout)
}

// environment is what Lambda sets for a runtime, with the machine's programs in
// the path.
func (e *event) environment() []string {
	env := []string{
		"AWS_LAMBDA_RUNTIME_API=" + e.API,
		"AWS_LAMBDA_FUNCTION_NAME=" + e.Function,
		"AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=" + strconv.Itoa(e.MemoryMB),
		"AWS_LAMBDA_INITIALIZATION_TYPE=on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/" + e.Function,
		"AWS_LAMBDA_LOG_STREAM_NAME=" + e.Slot,
		"AWS_REGION=local", "AWS_DEFAULT_REGION=local",
		"LAMBDA_TASK_ROOT=/var/task", "LAMBDA_RUNTIME_DIR=/var/runtime", "_HANDLER=boxer",
		"LANG=en_US.UTF-8", "TZ=:UTC",
		"LD_LIBRARY_PATH=/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
		"PATH=" + hostPath + ":/opt/bin",
		"HOME=/home/sbx_user1051", // not writable; not even there
	}
	for name, value := range e.Environment {
		env = append(env, name+"="+value)
	}
	return env
}

// runtimeAPI serves events to the runtime in this sandbox, one after the other:
// one, or several to an environment that is used again.
type runtimeAPI struct {
	server *http.Server
	events chan *event   // the next one
	asked  chan struct{} // the runtime waits for the next one

	mu       sync.Mutex
	event    *event // the one under way, or the last
	began    time.Time
	fetched  bool
	answered bool
	failure  string
	done     chan struct{} // closed when the event is answered
	signals  bool          // an extension inside the runtime has asked for SIGTERM
}

func serveRuntimeAPI(e *event) (*runtimeAPI, error) {
	l, err := net.Listen("tcp4", e.API)
	if err != nil {
		return nil, fmt.Errorf("runtime API: %w", err)
	}
	a := &runtimeAPI{events: make(chan *event, 1), asked: make(chan struct{}, 1), began: time.Now()}
	a.give(e)
	a.server = &http.Server{Handler: a.handler(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = a.server.Serve(l) }()
	return a, nil
}

// give has the runtime get an event. The one before must be answered.
func (a *runtimeAPI) give(e *event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.event, a.answered, a.failure, a.done = e, false, "", make(chan struct{})
	a.events <- e
}

func (a *runtimeAPI) close() { _ = a.server.Close() }

func (a *runtimeAPI) handler() http.Handler {
	const runtime, extension = "/2018-06-01/runtime", "/2020-01-01/extension"
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+runtime+"/invocation/next", a.next)
	mux.HandleFunc("POST "+runtime+"/invocation/{id}/response", a.response)
	mux.HandleFunc("POST "+runtime+"/invocation/{id}/error", a.failed)
	mux.HandleFunc("POST "+runtime+"/init/error", a.failed)
	mux.HandleFunc("POST "+extension+"/register", func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.signals = true
		w.Header().Set("Lambda-Extension-Identifier", a.event.RequestID)
		writeAPI(w, http.StatusOK, map[string]string{
			"functionName": a.event.Function, "functionVersion": "$LATEST", "handler": "boxer"})
	})
	mux.HandleFunc("GET "+extension+"/event/next", a.sleep)
	return mux
}

// next gives an event out. Where there is none it waits, as a frozen sandbox does.
func (a *runtimeAPI) next(w http.ResponseWriter, r *http.Request) {
	var e *event
	select {
	case e = <-a.events:
	default:
		a.wanted()
		select {
		case e = <-a.events:
		case <-r.Context().Done():
			return
		}
	}
	a.initialised()
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Lambda-Runtime-Aws-Request-Id", e.RequestID)
	h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(e.Deadline.UnixMilli(), 10))
	h.Set("Lambda-Runtime-Invoked-Function-Arn", e.ARN)
	h.Set("Lambda-Runtime-Trace-Id", traceID(e))
	_, _ = w.Write(e.Payload)
}

// traceID is one that is not sampled.
func traceID(e *event) string {
	id := strings.ReplaceAll(e.RequestID, "-", "") + strings.Repeat("0", 24)
	return fmt.Sprintf("Root=1-%08x-%s;Sampled=0", e.Deadline.Add(-e.Timeout).Unix(), id[:24])
}

func (a *runtimeAPI) wanted() {
	select {
	case a.asked <- struct{}{}:
	default:
	}
}

// initTime is what Lambda gives a runtime to ask for its first event.
const initTime = 10 * time.Second

// initialised notes that the runtime has asked for an event.
func (a *runtimeAPI) initialised() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if took := time.Since(a.began); !a.fetched && took > initTime {
		nodeLogger().Warn().Dur("took", took).Msg("the runtime started more slowly than Lambda allows (10 s)")
	}
	a.fetched = true
}

func (a *runtimeAPI) sleep(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func (a *runtimeAPI) response(w http.ResponseWriter, r *http.Request) {
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxResponse))
	a.answer(w, r, "", err)
}

// failed takes an error report of the runtime.
func (a *runtimeAPI) failed(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxResponse))
	a.answer(w, r, errorReport(body), err)
}

// errorReport makes one line of Lambda's error document.
func errorReport(body []byte) string {
	var doc struct {
		Message string `json:"errorMessage"`
		Type    string `json:"errorType"`
	}
	if err := json.Unmarshal(body, &doc); err != nil || doc.Message == "" && doc.Type == "" {
		if len(body) == 0 {
			return "the runtime reported an error without saying which"
		}
		return string(body[:min(len(body), 1000)])
	}
	if doc.Type == "" {
		return doc.Message
	}
	return doc.Type + ": " + doc.Message
}

func (a *runtimeAPI) answer(w http.ResponseWriter, r *http.Request, failure string, err error) {
	if id := r.PathValue("id"); id != "" && !a.underWay(id) {
		writeAPIError(w, http.StatusBadRequest, errors.New("InvalidRequestID: not the event of this sandbox"))
		return
	}
	if err != nil {
		writeAPIError(w, http.StatusRequestEntityTooLarge, fmt.Errorf("read the answer: %w", err))
		return
	}
	over := a.note(failure) // before the runtime, told so, ends
	writeAPI(w, http.StatusAccepted, map[string]string{"status": "OK"})
	if f, ok := w.(http.Flusher); ok {
		f.Flush() // before the end of the sandbox cuts it off
	}
	over()
}

// underWay: it is the event that the runtime works on, or its last one.
func (a *runtimeAPI) underWay(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return id == a.event.RequestID
}

// registered: Lambda warns of the end of the sandbox only who has an extension.
func (a *runtimeAPI) registered() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.signals
}

// answeredEvent is closed when the present event is answered.
func (a *runtimeAPI) answeredEvent() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.done
}

// finish records the first outcome of an event, which ends the sandbox, or the
// event where the sandbox is used again.
func (a *runtimeAPI) finish(failure string) { a.note(failure)() }

// note is the first half of finish: what it returns is the other.
func (a *runtimeAPI) note(failure string) (over func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.answered {
		return func() {}
	}
	a.answered, a.failure = true, failure
	done := a.done
	return func() { close(done) }
}

func (a *runtimeAPI) outcome() (failure string, answered bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failure, a.answered
}

// writeAPI answers with v as JSON.
func writeAPI(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
