// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Call is what somebody asked of the account.
type Call struct {
	Service, Action string // "ec2", "RunInstances"
	Path            string // of the request: names the object for Lambda
	Body            string // of the request, as it was sent
	Status          int    // what was answered; 0: nothing, the connection was cut
	Fault           string // the name of the fault that struck
	At              time.Time
	Took            time.Duration
}

func (c Call) String() string { return c.Service + "." + c.Action }

// Form is the request of a service that takes forms (ec2, iam, sts).
func (c Call) Form() url.Values {
	form, _ := url.ParseQuery(c.Body)
	return form
}

// Calls are all calls so far, in the order in which they were answered; with names,
// such as "ec2.RunInstances", only those.
func (a *AWS) Calls(names ...string) []Call {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(names) == 0 {
		return slices.Clone(a.calls)
	}
	var found []Call
	for _, c := range a.calls {
		if slices.Contains(names, c.String()) {
			found = append(found, c)
		}
	}
	return found
}

// scope finds the service in a signature: Credential=KEY/date/region/service/aws4_request.
var scope = regexp.MustCompile(`Credential=[^/]+/\d+/[^/]+/([a-z0-9-]+)/aws4_request`)

// identify says what a request asks for.
func identify(r *http.Request, body []byte) Call {
	c := Call{Path: r.URL.Path, Body: string(body), At: time.Now()}
	if match := scope.FindStringSubmatch(r.Header.Get("Authorization")); match != nil {
		c.Service = match[1]
	}
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		prefix, action, _ := strings.Cut(target, ".")
		c.Action = action
		if c.Service == "" {
			c.Service = map[string]string{"AmazonSSM": "ssm", "Logs_20140328": "logs"}[prefix]
		}
		return c
	}
	if c.Service == "lambda" || c.Service == "" && lambdaAction(r.Method, r.URL.Path) != "" {
		c.Service, c.Action = "lambda", lambdaAction(r.Method, r.URL.Path)
		return c
	}
	c.Action = c.Form().Get("Action")
	return c
}

// lambdaActions are by method and path, of which the first part is a date.
var lambdaActions = []struct {
	method, action string
	path           *regexp.Regexp
}{
	{"POST", "CreateFunction", on(`functions`)},
	{"GET", "ListFunctions", on(`functions`)},
	{"GET", "GetFunction", on(`functions/[^/]+`)},
	{"DELETE", "DeleteFunction", on(`functions/[^/]+`)},
	{"GET", "GetFunctionConfiguration", on(`functions/[^/]+/configuration`)},
	{"PUT", "UpdateFunctionConfiguration", on(`functions/[^/]+/configuration`)},
	{"PUT", "UpdateFunctionCode", on(`functions/[^/]+/code`)},
	{"POST", "Invoke", on(`functions/[^/]+/invocations`)},
	{"PUT", "PutFunctionConcurrency", on(`functions/[^/]+/concurrency`)},
	{"GET", "GetFunctionConcurrency", on(`functions/[^/]+/concurrency`)},
	{"DELETE", "DeleteFunctionConcurrency", on(`functions/[^/]+/concurrency`)},
	{"PUT", "PutFunctionEventInvokeConfig", on(`functions/[^/]+/event-invoke-config`)},
	{"POST", "UpdateFunctionEventInvokeConfig", on(`functions/[^/]+/event-invoke-config`)},
	{"GET", "GetFunctionEventInvokeConfig", on(`functions/[^/]+/event-invoke-config`)},
	{"DELETE", "DeleteFunctionEventInvokeConfig", on(`functions/[^/]+/event-invoke-config`)},
	{"PUT", "PutFunctionRecursionConfig", on(`functions/[^/]+/recursion-config`)},
	{"GET", "GetFunctionRecursionConfig", on(`functions/[^/]+/recursion-config`)},
	{"GET", "ListLayers", on(`layers`)},
	{"POST", "PublishLayerVersion", on(`layers/[^/]+/versions`)},
	{"GET", "ListLayerVersions", on(`layers/[^/]+/versions`)},
	{"GET", "GetLayerVersion", on(`layers/[^/]+/versions/\d+`)},
	{"DELETE", "DeleteLayerVersion", on(`layers/[^/]+/versions/\d+`)},
	{"GET", "ListTags", on(`tags/.+`)},
	{"POST", "TagResource", on(`tags/.+`)},
	{"DELETE", "UntagResource", on(`tags/.+`)},
}

func on(path string) *regexp.Regexp {
	return regexp.MustCompile(`^/20\d\d-\d\d-\d\d/` + path + `/?$`)
}

func lambdaAction(method, path string) string {
	for _, known := range lambdaActions {
		if known.method == method && known.path.MatchString(path) {
			return known.action
		}
	}
	return ""
}

// serve answers one request.
func (a *AWS) serve(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, contentPath) {
		a.content(w, r)
		return
	}
	if strings.HasPrefix(r.URL.Path, metadataPath) {
		a.metadata.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	c := identify(r, body)
	fault := a.strikes(c)
	if fault.Delay > 0 {
		select {
		case <-time.After(fault.Delay):
		case <-r.Context().Done():
		}
	}
	c.Fault = fault.Name
	var answer *httptest.ResponseRecorder
	switch {
	case fault.Reset: // nothing happens, and nothing is said
	case fault.Code != "":
		answer = fault.answer(c)
	default:
		answer = a.perform(c, r, body)
		if fault.Rewrite != nil && answer.Code < 300 {
			answer = rewritten(answer, fault.Rewrite)
		}
	}
	if answer != nil && !fault.Lost {
		c.Status = answer.Code
	}
	c.Took = time.Since(c.At)
	a.mu.Lock()
	a.calls = append(a.calls, c)
	a.mu.Unlock()
	if c.Status == 0 {
		panic(http.ErrAbortHandler) // cuts the connection
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// perform has a call take effect.
func (a *AWS) perform(c Call, r *http.Request, body []byte) *httptest.ResponseRecorder {
	if c.Service == "lambda" {
		if answer := a.lambda(c, r, body); answer != nil {
			return answer
		}
	}
	answer := a.ask(r, body)
	if c.String() == "ec2.AllocateAddress" {
		answer = a.usableAddress(answer, r, body)
	}
	if answer.Code < 300 {
		switch c.String() {
		case "lambda.GetLayerVersion", "lambda.PublishLayerVersion":
			a.keepLayer(c)
			answer = rewritten(answer, a.locate)
		}
		a.mu.Lock()
		observers := slices.Clone(a.observe)
		change := a.change
		a.mu.Unlock()
		for _, o := range observers {
			o(c, answer.Body.Bytes())
		}
		if change != nil {
			answer = rewritten(answer, func(body []byte) []byte { return change(c, body) })
		}
	}
	return answer
}

// ask passes a request on to moto.
func (a *AWS) ask(r *http.Request, body []byte) *httptest.ResponseRecorder {
	again := r.Clone(r.Context())
	again.Body, again.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	again.Header.Del("Accept-Encoding") // answers are read, and some changed
	answer := httptest.NewRecorder()
	a.forward.ServeHTTP(answer, again)
	return answer
}

func rewritten(answer *httptest.ResponseRecorder, change func([]byte) []byte) *httptest.ResponseRecorder {
	fresh := httptest.NewRecorder()
	for name, values := range answer.Header() {
		fresh.Header()[name] = values
	}
	body := change(answer.Body.Bytes())
	fresh.Header().Set("Content-Length", strconv.Itoa(len(body)))
	fresh.WriteHeader(answer.Code)
	_, _ = fresh.Write(body)
	return fresh
}

var publicIP = regexp.MustCompile(`<publicIp>127\.(\d+)\.[^<]*</publicIp>`)

// usableAddress asks again while an Elastic IP is one that Boxer has another use for
// on loopback.
func (a *AWS) usableAddress(answer *httptest.ResponseRecorder, r *http.Request, body []byte) *httptest.ResponseRecorder {
	for range 50 {
		match := publicIP.FindStringSubmatch(answer.Body.String())
		if match == nil {
			break
		}
		if second, _ := strconv.Atoi(match[1]); second >= firstAddress && second < guestBlocks {
			break
		}
		id := regexp.MustCompile(`<allocationId>([^<]+)`).FindStringSubmatch(answer.Body.String())
		release := url.Values{"Action": {"ReleaseAddress"}, "Version": {"2016-11-15"}, "AllocationId": {id[1]}}
		a.ask(r, []byte(release.Encode()))
		answer = a.ask(r, body)
	}
	return answer
}

// Second bytes of loopback addresses: Elastic IPs are between these, nodes beyond.
const (
	firstAddress = 70 // 127.66 to 127.68 are Boxer's
	guestBlocks  = 128
)

var functionPath = regexp.MustCompile(`/functions/([^/]+)`)

// lambda answers for what moto has not; nil: moto has it.
func (a *AWS) lambda(c Call, r *http.Request, body []byte) *httptest.ResponseRecorder {
	switch c.Action {
	case "Invoke", "PutFunctionRecursionConfig", "GetFunctionRecursionConfig":
	default:
		return nil
	}
	name := FunctionName(functionPath.FindStringSubmatch(r.URL.Path)[1])
	about := r.Clone(r.Context())
	about.Method, about.URL.Path, about.URL.RawPath = http.MethodGet, "/2015-03-31/functions/"+name, ""
	answer := a.ask(about, nil)
	if answer.Code >= 300 { // there is no such function
		return answer
	}
	answer = httptest.NewRecorder()
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.Action != "Invoke" {
		var setting struct{ RecursiveLoop string }
		if c.Action == "PutFunctionRecursionConfig" {
			_ = json.Unmarshal(body, &setting)
			a.loops[name] = setting.RecursiveLoop
		}
		if setting.RecursiveLoop = a.loops[name]; setting.RecursiveLoop == "" {
			setting.RecursiveLoop = "Terminate"
		}
		answer.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(answer).Encode(setting)
		return answer
	}
	if r.Header.Get("X-Amz-Invocation-Type") != "Event" {
		return Fault{Status: http.StatusBadRequest, Code: "InvalidParameterValueException",
			Message: "the emulator takes invocations of type Event only"}.answer(c)
	}
	if a.invoke != nil {
		go a.invoke(name, body)
	}
	answer.WriteHeader(http.StatusAccepted)
	return answer
}

// FunctionName is the name in a name, an ARN or a part of one, as Lambda takes them.
func FunctionName(text string) string {
	if unescaped, err := url.PathUnescape(text); err == nil {
		text = unescaped
	}
	if _, after, ok := strings.Cut(text, "function:"); ok {
		text = after
	}
	name, _, _ := strings.Cut(text, ":")
	return name
}

const contentPath = "/emulator/layers/"

// keepLayer keeps what moto does not give out.
func (a *AWS) keepLayer(c Call) {
	var request struct {
		Content struct{ ZipFile []byte }
	}
	if json.Unmarshal([]byte(c.Body), &request) == nil && len(request.Content.ZipFile) > 0 {
		a.mu.Lock()
		a.layers[codeHash(request.Content.ZipFile)] = request.Content.ZipFile
		a.mu.Unlock()
	}
}

// locate says where a layer's content can be had.
func (a *AWS) locate(body []byte) []byte {
	var answer map[string]any
	if json.Unmarshal(body, &answer) != nil {
		return body
	}
	content, _ := answer["Content"].(map[string]any)
	hash, _ := content["CodeSha256"].(string)
	if content == nil || hash == "" {
		return body
	}
	content["Location"] = a.URL() + contentPath + base64.RawURLEncoding.EncodeToString([]byte(hash)) + "?X-Amz-Expires=600"
	out, err := json.Marshal(answer)
	if err != nil {
		return body
	}
	return out
}

func (a *AWS) content(w http.ResponseWriter, r *http.Request) {
	hash, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(r.URL.Path, contentPath))
	a.mu.Lock()
	data := a.layers[string(hash)]
	a.mu.Unlock()
	if err != nil || data == nil {
		http.Error(w, fmt.Sprintf("no layer has the content %q", hash), http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/zip")
	_, _ = w.Write(data)
}

// metadataPath is what an instance's metadata service is below, here.
const metadataPath = "/emulator/metadata/"
