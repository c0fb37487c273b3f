// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// socketName is the API's socket in the network's directory.
const socketName = "cloud.sock"

// keepLogsQuery leaves the logs of what is deleted.
const keepLogsQuery = "keep_logs"

// invokeSocket is the Invoke API's, in a seed's state directory.
const invokeSocket = "invoke.sock"

const invokePath = "/2015-03-31/functions/{name}/invocations"

// apiServer serves the daemon's API.
type apiServer struct {
	http *http.Server
	path string
}

// badRequest marks an error of the caller.
type badRequest struct{ error }

func (b badRequest) Unwrap() error { return b.error }

// apiError is an error as it travels.
type apiError struct {
	Code    string `json:"code"` // exists, not_found, bad_request, internal
	Message string `json:"message"`
}

func (e *apiError) Error() string { return e.Message }

func (e *apiError) Is(target error) bool {
	return e.Code == "exists" && target == ErrExists || e.Code == "not_found" && target == ErrNotFound
}

// hostRequest and functionRequest name the copy of the source directory the
// client made below incoming/.
type hostRequest struct {
	HostSpec
	Incoming string `json:"incoming,omitempty"`
}

type functionRequest struct {
	FunctionSpec
	Incoming string `json:"incoming,omitempty"`
	Hash     string `json:"hash"`
}

func (d *daemon) serve() (*apiServer, error) {
	path := d.dir.join(socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, stateError(d.dir.stateDir(), err)
	}
	base, held, err := hiddenBase(string(d.dir))
	if err != nil {
		return nil, stateError(d.dir.stateDir(), err)
	}
	defer held.Close()
	l, err := net.Listen("unix", filepath.Join(base, socketName))
	if err != nil {
		return nil, stateError(d.dir.stateDir(), err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, stateError(d.dir.stateDir(), err)
	}
	s := &apiServer{path: path, http: &http.Server{Handler: d.handler(), ReadHeaderTimeout: 10 * time.Second}}
	go func() { _ = s.http.Serve(l) }()
	return s, nil
}

// serveInvoke lets a seed launch functions, and nothing else, until the daemon
// ends. The place of its socket is the seed's alone, as its role is on AWS.
func (d *daemon) serveInvoke(spec initSpec) error {
	d.mu.Lock()
	serving := d.invokers[spec.Slot]
	d.invokers[spec.Slot] = true
	d.mu.Unlock()
	if serving {
		return nil // its host was started again
	}
	base, held, err := hiddenBase(spec.State)
	if err != nil {
		return stateError(d.dir.stateDir(), err)
	}
	defer held.Close()
	path := filepath.Join(base, invokeSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return stateError(d.dir.stateDir(), err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return stateError(d.dir.stateDir(), err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(path, 0o600)
	if err == nil {
		err = os.Lchown(path, spec.MapUID, spec.MapGID)
	}
	if err != nil {
		l.Close()
		return stateError(d.dir.stateDir(), err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+invokePath, d.postInvocation)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }()
	return nil
}

func (s *apiServer) close() {
	_ = s.http.Close()
	_ = os.Remove(s.path)
}

func (d *daemon) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hosts", func(w http.ResponseWriter, r *http.Request) { answer(w, d.listHosts(), nil) })
	mux.HandleFunc("POST /hosts", d.postHost)
	mux.HandleFunc("GET /hosts/{slot}", func(w http.ResponseWriter, r *http.Request) {
		h, err := d.getHost(r.PathValue("slot"))
		answer(w, h, err)
	})
	mux.HandleFunc("PUT /hosts/{slot}", d.putHost)
	mux.HandleFunc("DELETE /hosts/{slot}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, d.deleteHost(r.PathValue("slot"), !r.URL.Query().Has(keepLogsQuery)))
	})
	mux.HandleFunc("GET /functions", func(w http.ResponseWriter, r *http.Request) { answer(w, d.listFunctions(), nil) })
	mux.HandleFunc("POST /functions", d.postFunction)
	mux.HandleFunc("GET /functions/{name}", func(w http.ResponseWriter, r *http.Request) {
		f, err := d.getFunction(r.PathValue("name"))
		answer(w, f, err)
	})
	mux.HandleFunc("PUT /functions/{name}", d.putFunction)
	mux.HandleFunc("PUT /functions/{name}/declared", func(w http.ResponseWriter, r *http.Request) {
		var declared json.RawMessage
		if readRequest(w, r, &declared) {
			answer(w, struct{}{}, d.setDeclared(r.PathValue("name"), declared))
		}
	})
	mux.HandleFunc("DELETE /functions/{name}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, d.deleteFunction(r.PathValue("name"), !r.URL.Query().Has(keepLogsQuery)))
	})
	mux.HandleFunc("GET /functions/{name}/invocations", func(w http.ResponseWriter, r *http.Request) {
		list, err := d.listInvocations(r.PathValue("name"))
		answer(w, list, err)
	})
	mux.HandleFunc("DELETE /functions/{name}/invocations/{slot}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, d.stopInvocations(r.PathValue("name"), r.PathValue("slot")))
	})
	mux.HandleFunc("POST /functions/{name}/invocations/{slot}/nat/{what}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, d.disturbNAT(r.PathValue("name"), r.PathValue("slot"), r.PathValue("what")))
	})
	mux.HandleFunc("POST "+invokePath, d.postInvocation)
	return mux
}

func (d *daemon) postHost(w http.ResponseWriter, r *http.Request) {
	var req hostRequest
	var incoming string
	if readRequest(w, r, &req) && d.takeIncoming(w, req.Incoming, &incoming) {
		h, err := d.createHost(r.Context(), req.HostSpec, incoming)
		answer(w, h, err)
	}
}

func (d *daemon) putHost(w http.ResponseWriter, r *http.Request) {
	var req hostRequest
	var incoming string
	if readRequest(w, r, &req) && d.takeIncoming(w, req.Incoming, &incoming) {
		h, err := d.updateHost(r.Context(), r.PathValue("slot"), req.HostSpec, incoming)
		answer(w, h, err)
	}
}

func (d *daemon) postFunction(w http.ResponseWriter, r *http.Request) {
	var req functionRequest
	var incoming string
	if readRequest(w, r, &req) && d.takeIncoming(w, req.Incoming, &incoming) {
		f, err := d.createFunction(req.FunctionSpec, incoming, req.Hash)
		answer(w, f, err)
	}
}

func (d *daemon) putFunction(w http.ResponseWriter, r *http.Request) {
	var req functionRequest
	var incoming string
	if readRequest(w, r, &req) && d.takeIncoming(w, req.Incoming, &incoming) {
		req.Name = r.PathValue("name")
		f, err := d.updateFunction(req.FunctionSpec, incoming, req.Hash)
		answer(w, f, err)
	}
}

func (d *daemon) takeIncoming(w http.ResponseWriter, name string, path *string) bool {
	var err error
	if *path, err = d.incoming(name); err != nil {
		answer(w, nil, err)
	}
	return err == nil
}

// postInvocation is Lambda's Invoke, of which only the asynchronous kind fits a
// node's life.
func (d *daemon) postInvocation(w http.ResponseWriter, r *http.Request) {
	if kind := r.Header.Get("X-Amz-Invocation-Type"); kind != "Event" {
		answer(w, nil, badRequest{fmt.Errorf("InvalidParameterValueException: invocation type %q: the local cloud takes Event alone", kind)})
		return
	}
	payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPayload))
	if err != nil {
		answer(w, nil, badRequest{fmt.Errorf("RequestTooLargeException: the payload is larger than %d bytes", maxPayload)})
		return
	}
	i, err := d.invoke(r.PathValue("name"), payload)
	if err != nil {
		answer(w, nil, err)
		return
	}
	w.Header().Set("X-Amzn-RequestId", i.RequestID)
	w.WriteHeader(http.StatusAccepted)
}

// incoming is the path of a copy a client made, which must lie where clients
// make them.
func (d *daemon) incoming(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return "", badRequest{fmt.Errorf("incoming %q: not a name", name)}
	}
	return d.dir.join("incoming", name, "source"), nil
}

func readRequest(w http.ResponseWriter, r *http.Request, v any) bool {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<20)).Decode(v)
	if err != nil {
		answer(w, nil, badRequest{fmt.Errorf("request: %w", err)})
	}
	return err == nil
}

// answer writes v, or err with the status and code that tell its kind.
func answer(w http.ResponseWriter, v any, err error) {
	var bad badRequest
	switch {
	case err == nil:
		writeAPI(w, http.StatusOK, v)
	case errors.Is(err, ErrExists):
		writeAPI(w, http.StatusConflict, apiError{"exists", err.Error()})
	case errors.Is(err, ErrNotFound):
		writeAPI(w, http.StatusNotFound, apiError{"not_found", err.Error()})
	case errors.As(err, &bad):
		writeAPI(w, http.StatusBadRequest, apiError{"bad_request", err.Error()})
	default:
		writeAPI(w, http.StatusInternalServerError, apiError{"internal", err.Error()})
	}
}

// writeAPIError answers as the Runtime API does.
func writeAPIError(w http.ResponseWriter, status int, err error) {
	writeAPI(w, status, map[string]string{"errorMessage": err.Error(), "errorType": http.StatusText(status)})
}
