// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/boxer-overlay/boxer/layer"
)

// keepCode keeps what moto does not give out.
func (n *Nodes) keepCode(c Call) {
	var request struct {
		ZipFile []byte
		Code    struct{ ZipFile []byte }
	}
	if json.Unmarshal([]byte(c.Body), &request) != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, data := range [][]byte{request.ZipFile, request.Code.ZipFile} {
		if len(data) > 0 {
			n.code[codeHash(data)] = data
		}
	}
}

// invoke runs one event in a sandbox of its own.
func (n *Nodes) invoke(function string, payload []byte) {
	n.task(func() error { return n.sandbox(function, payload) }, "function "+function)
}

func (n *Nodes) sandbox(function string, payload []byte) error {
	client := lambda.NewFromConfig(n.a.Config())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	about, err := client.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &function})
	if err != nil {
		return nil // deleted meanwhile
	}
	if about.Concurrency != nil && aws.ToInt32(about.Concurrency.ReservedConcurrentExecutions) == 0 && about.Concurrency.ReservedConcurrentExecutions != nil {
		return nil // Lambda throws such events away
	}
	conf := about.Configuration
	p := n.newProcess("function " + function)
	n.mu.Lock()
	code := n.code[aws.ToString(conf.CodeSha256)]
	n.mu.Unlock()
	event, err := n.event(p, payload)
	if err == nil {
		err = os.MkdirAll(filepath.Join(p.root, "var/task"), 0o755)
	}
	if err == nil {
		err = os.MkdirAll(filepath.Join(p.root, "tmp"), 0o755)
	}
	if err == nil && bytes.HasPrefix(code, []byte("PK")) {
		err = unpackZip(code, filepath.Join(p.root, "var/task"))
	}
	for _, l := range conf.Layers {
		if err == nil {
			err = n.addLayer(ctx, p, aws.ToString(l.Arn))
		}
	}
	if err != nil {
		close(p.ended)
		return err
	}
	api, err := serveRuntime(event, aws.ToString(conf.FunctionArn), time.Duration(aws.ToInt32(conf.Timeout))*time.Second)
	if err != nil {
		close(p.ended)
		return err
	}
	defer api.server.Close()
	env := []string{
		"AWS_LAMBDA_RUNTIME_API=" + api.address, "AWS_LAMBDA_FUNCTION_NAME=" + function, "AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=" + fmt.Sprint(aws.ToInt32(conf.MemorySize)), "AWS_REGION=" + Region, "AWS_DEFAULT_REGION=" + Region,
		"AWS_ACCESS_KEY_ID=" + functionKey, "AWS_SECRET_ACCESS_KEY=emulated", "AWS_SESSION_TOKEN=emulated",
		"AWS_ENDPOINT_URL=" + n.a.URL(), "LAMBDA_TASK_ROOT=" + p.root + "/var/task", "HOME=/home/sbx_user1051",
		"LANG=en_US.UTF-8", "TZ=:UTC", "PATH=" + os.Getenv("PATH"),
	}
	if conf.Environment != nil {
		for name, value := range conf.Environment.Variables {
			env = append(env, name+"="+value)
		}
	}
	bootstrap := filepath.Join(p.root, "opt", layer.BootstrapPath)
	if err := p.start(filepath.Join(p.root, "var/task"), env, bootstrap); err != nil {
		return err
	}
	select {
	case <-api.done:
		p.say("answered: " + api.outcome())
	case <-p.ended:
	case <-time.After(time.Until(api.deadline)):
		p.say("the function timed out")
	}
	p.kill()
	return nil
}

// event puts what is true of a plain process into a launch event.
func (n *Nodes) event(p *process, payload []byte) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber()
	event := map[string]any{}
	if err := decoder.Decode(&event); err != nil {
		return nil, fmt.Errorf("the event: %w", err)
	}
	if slot, ok := event["slot"].(string); ok {
		n.mu.Lock()
		p.name += " (" + slot + ")"
		n.mu.Unlock()
	}
	files, _ := event["files"].(map[string]any)
	names := map[string]string{}
	for name := range files {
		names[name] = ""
	}
	at := p.place(names)
	event["underlay_address"], event["shared"], event["root"], event["places"] = at.UnderlayAddress, at.Shared, at.Root, at.Places
	return json.Marshal(event)
}

// addLayer shows a layer version in /opt: Boxer's by a link, for it is large.
func (n *Nodes) addLayer(ctx context.Context, p *process, arn string) error {
	name, version, ok := cutLast(arn, ":")
	number, err := strconv.ParseInt(version, 10, 64)
	if !ok || err != nil {
		return fmt.Errorf("layer %q is not the ARN of a version", arn)
	}
	about, err := lambda.NewFromConfig(n.a.Config()).GetLayerVersion(ctx, &lambda.GetLayerVersionInput{LayerName: &name, VersionNumber: &number})
	if err != nil {
		return err
	}
	hash, err := hexHash(aws.ToString(about.Content.CodeSha256))
	if err != nil {
		return err
	}
	dir, err := n.layerDir(hash)
	if err != nil {
		return err
	}
	return os.Symlink(dir, filepath.Join(p.root, "opt"))
}

func cutLast(text, separator string) (before, after string, found bool) {
	i := strings.LastIndex(text, separator)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(separator):], true
}

func (n *Nodes) stopFunction(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.running {
		if p.name == "function "+name || strings.HasPrefix(p.name, "function "+name+" ") {
			n.work.Go(p.kill)
		}
	}
}

// unpackTask puts the contents of what was published into /var/task.
func (n *Nodes) unpackTask(p *process, hash string) error {
	data, err := n.a.published(hash)
	if err != nil {
		return err
	}
	dir := filepath.Join(p.root, "var/task")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return unpackZip(data, dir)
}

// runtimeAPI serves one event to one sandbox.
type runtimeAPI struct {
	address  string
	server   *http.Server
	deadline time.Time
	done     chan struct{}

	mu     sync.Mutex
	given  bool
	answer string
}

func serveRuntime(event []byte, arn string, timeout time.Duration) (*runtimeAPI, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	api := &runtimeAPI{address: l.Addr().String(), deadline: time.Now().Add(timeout), done: make(chan struct{})}
	const base = "/2018-06-01/runtime"
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+base+"/invocation/next", func(w http.ResponseWriter, r *http.Request) {
		api.mu.Lock()
		given := api.given
		api.given = true
		api.mu.Unlock()
		if given { // a frozen sandbox
			<-r.Context().Done()
			return
		}
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Lambda-Runtime-Aws-Request-Id", "event")
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(api.deadline.UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", arn)
		_, _ = w.Write(event)
	})
	mux.HandleFunc("POST "+base+"/invocation/event/response", api.end)
	mux.HandleFunc("POST "+base+"/invocation/event/error", api.end)
	mux.HandleFunc("POST "+base+"/init/error", api.end)
	mux.HandleFunc("POST /2020-01-01/extension/register", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Lambda-Extension-Identifier", "event")
		_, _ = io.WriteString(w, `{"functionName":"f","functionVersion":"$LATEST","handler":"boxer"}`)
	})
	mux.HandleFunc("GET /2020-01-01/extension/event/next", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	api.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := api.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			_ = l.Close()
		}
	}()
	return api, nil
}

func (api *runtimeAPI) end(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 6<<20))
	w.WriteHeader(http.StatusAccepted)
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	api.mu.Lock()
	defer api.mu.Unlock()
	if api.answer == "" {
		api.answer = filepath.Base(r.URL.Path) + " " + string(body)
		close(api.done)
	}
}

func (api *runtimeAPI) outcome() string {
	api.mu.Lock()
	defer api.mu.Unlock()
	return api.answer
}
