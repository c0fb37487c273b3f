// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	testID  = "AKIDEXAMPLE"
	testKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	secret  = "a secret of some thirty letters"
)

// plainEnvironment has none of what a developer's own may have.
func plainEnvironment(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_FUNCTION_NAME",
		"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL_LAMBDA", "AWS_EC2_METADATA_SERVICE_ENDPOINT"} {
		t.Setenv(name, "")
	}
}

// service is an API that answers with each of these, and with the last from then on.
type service struct {
	*httptest.Server
	t       *testing.T
	mu      sync.Mutex
	answers []answer
	asked   []*http.Request
	bodies  []string
	clock   time.Duration // of the service
}

type answer struct {
	status int
	kind   string // X-Amzn-Errortype
	body   string
}

func newService(t *testing.T, answers ...answer) *service {
	t.Helper()
	s := &service{t: t, answers: answers}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	plainEnvironment(t)
	t.Setenv("AWS_ENDPOINT_URL", s.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", testID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", testKey)
	t.Setenv("AWS_SESSION_TOKEN", "a/session+token==")
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	if want := signature(r, body, testKey); !strings.HasSuffix(r.Header.Get("Authorization"), "Signature="+want) {
		s.t.Errorf("%s %s: signed %q, want %s", r.Method, r.URL, r.Header.Get("Authorization"), want)
	}
	now := time.Now().Add(s.clock)
	signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		s.t.Error(err)
	}
	s.asked, s.bodies = append(s.asked, r), append(s.bodies, string(body))
	a := s.answers[0]
	switch {
	case now.Sub(signed).Abs() > 5*time.Minute:
		a = answer{403, "", `{"__type":"InvalidSignatureException","message":"Signature expired: a is now earlier than b"}`}
	case len(s.answers) > 1:
		s.answers = s.answers[1:]
	}
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	if a.kind != "" {
		w.Header().Set("X-Amzn-Errortype", a.kind)
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body)
}

func (s *service) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// signature is what version 4 makes of a request and the headers that it names
// (IAM User Guide, "Create a signed AWS API request").
func signature(r *http.Request, body []byte, key string) string {
	fields := map[string]string{}
	for part := range strings.SplitSeq(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "), ", ") {
		name, value, _ := strings.Cut(part, "=")
		fields[name] = value
	}
	hash := func(b []byte) string {
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:])
	}
	var headers strings.Builder
	for name := range strings.SplitSeq(fields["SignedHeaders"], ";") {
		value := r.Header.Get(name)
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = fmt.Sprint(len(body))
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, strings.TrimSpace(value))
	}
	canonical := strings.Join([]string{r.Method, r.URL.EscapedPath(), "", headers.String(), fields["SignedHeaders"], hash(body)}, "\n")
	_, scope, _ := strings.Cut(fields["Credential"], "/")
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", r.Header.Get("X-Amz-Date"), scope, hash([]byte(canonical))}, "\n")
	mac := []byte("AWS4" + key)
	for _, part := range append(strings.Split(scope, "/"), toSign) {
		m := hmac.New(sha256.New, mac)
		m.Write([]byte(part))
		mac = m.Sum(nil)
	}
	return hex.EncodeToString(mac)
}

// What checks our signatures agrees with botocore 1.43 on its own.
func TestSignaturesAreCheckedAsBotocoreMakesThem(t *testing.T) {
	for _, tt := range []struct{ url, service, signed, body, want string }{
		{"https://ssm.eu-west-1.amazonaws.com/", "ssm", "content-type;host;x-amz-date;x-amz-security-token;x-amz-target",
			`{"Name":"/boxer/shop/secret","WithDecryption":true}`, "f97fc662f42728dbe6492f9dee02c1d00cd1b207e14d8ddc774cc4c83923534c"},
		{"https://lambda.eu-west-1.amazonaws.com/2015-03-31/functions/boxer-shop-logic/invocations", "lambda",
			"content-type;host;x-amz-date;x-amz-invocation-type;x-amz-security-token", `{"version":1}`, "747e19b35ba046d022cefe3e70d8b75a6cb09ce4e124a32eee2d87b76084b32b"},
	} {
		r, err := http.NewRequest(http.MethodPost, tt.url, bytes.NewBufferString(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		kind := "application/json"
		if tt.service == "ssm" {
			kind = "application/x-amz-json-1.1"
			r.Header.Set("X-Amz-Target", "AmazonSSM.GetParameter")
		} else {
			r.Header.Set("X-Amz-Invocation-Type", "Event")
		}
		r.Header.Set("Content-Type", kind)
		r.Header.Set("X-Amz-Date", "20261122T120000Z")
		r.Header.Set("X-Amz-Security-Token", "a/session+token==")
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+testID+"/20261122/eu-west-1/"+tt.service+"/aws4_request, SignedHeaders="+tt.signed)
		if got := signature(r, []byte(tt.body), testKey); got != tt.want {
			t.Errorf("%s: %s, botocore says %s", tt.service, got, tt.want)
		}
	}
}

func parameterIs(value string) string {
	data, _ := json.Marshal(map[string]any{"Parameter": map[string]any{"Name": "x", "Type": "SecureString", "Value": value}})
	return string(data)
}

func TestParameter(t *testing.T) {
	s := newService(t, answer{status: 200, body: parameterIs(secret)})
	got, err := New().Parameter(t.Context(), "eu-west-1", "/boxer/shop/secret")
	if err != nil || got != secret {
		t.Fatalf("%q, %v", got, err)
	}
	r := s.asked[0]
	if r.Header.Get("X-Amz-Target") != "AmazonSSM.GetParameter" || r.Header.Get("X-Amz-Security-Token") != "a/session+token==" ||
		s.bodies[0] != `{"Name":"/boxer/shop/secret","WithDecryption":true}` ||
		!strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/ssm/aws4_request") {
		t.Errorf("asked with %v, %s", r.Header, s.bodies[0])
	}
}

// What passes is asked for again, what does not is not, and every error says what to do.
func TestRefusals(t *testing.T) {
	good := answer{status: 200, body: parameterIs(secret)}
	for _, tt := range []struct {
		name  string
		first answer
		kind  error
		want  string // nil: it passes
	}{
		{"denied", answer{400, "", `{"__type":"AccessDeniedException","Message":"User: arn:aws:sts::1:assumed-role/r/i is not authorized to perform: ssm:GetParameter on resource: x."}`}, ErrDenied,
			"AccessDeniedException: User: arn:aws:sts::1:assumed-role/r/i is not authorized to perform: ssm:GetParameter on resource: x: allow ssm:GetParameter on parameter /s in eu-west-1 in this node's role"},
		{"its key", answer{400, "", `{"__type":"AccessDeniedException","Message":"not authorized to perform: kms:Decrypt on this resource"}`}, ErrDenied, "allow kms:Decrypt on the key of parameter /s in eu-west-1"},
		{"absent", answer{400, "", `{"__type":"com.amazonaws.ssm#ParameterNotFound"}`}, ErrNotFound, "ParameterNotFound: it was deleted"},
		{"a new role", answer{400, "UnrecognizedClientException:http://x", `{"message":"The security token included in the request is invalid."}`}, ErrDenied, "a new role takes up to two minutes"},
		{"a proxy", answer{403, "", `<html>no</html>`}, ErrDenied, "status 403 Forbidden"},
		{"throttled", answer{400, "", `{"__type":"ThrottlingException","message":"Rate exceeded"}`}, nil, ""},
		{"too many", answer{429, "TooManyRequestsException", `{}`}, nil, ""},
		{"broken", answer{500, "", `{"__type":"InternalServerError"}`}, nil, ""},
		{"a gateway", answer{503, "", ``}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, tt.first, good)
			got, err := New().Parameter(t.Context(), "eu-west-1", "/s")
			switch {
			case tt.want == "" && (err != nil || got != secret || s.count() != 2):
				t.Errorf("%q, %v after %d tries", got, err, s.count())
			case tt.want != "" && (err == nil || !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) || s.count() != 1):
				t.Errorf("%v after %d tries, want %q", err, s.count(), tt.want)
			}
		})
	}
}

func TestWhoIsThrottledGivesUpInTime(t *testing.T) {
	s := newService(t, answer{400, "", `{"__type":"ThrottlingException"}`})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := New().Parameter(ctx, "eu-west-1", "/s")
	if !errors.Is(err, ErrThrottled) || !strings.Contains(err.Error(), "quota") || s.count() < 2 {
		t.Errorf("%v after %d tries", err, s.count())
	}
}

// When time runs out while nobody answers, what was said before is what helps.
func TestTheLastWordsAreTheTellingOnes(t *testing.T) {
	newService(t, answer{status: 200})
	asked := 0
	silent := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked > 1 {
			<-silent
			return
		}
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"__type":"ThrottlingException"}`)
	}))
	defer s.Close()
	defer close(silent)
	t.Setenv("AWS_ENDPOINT_URL", s.URL)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := New().Parameter(ctx, "eu-west-1", "/s"); !errors.Is(err, ErrThrottled) {
		t.Error(err)
	}
}

// A machine may boot with a clock that is an hour late.
func TestAWrongClockIsSetByTheAnswer(t *testing.T) {
	s := newService(t, answer{status: 200, body: parameterIs(secret)})
	s.clock = time.Hour
	c := New()
	for want := range 2 { // the second is right at once
		if got, err := c.Parameter(t.Context(), "eu-west-1", "/s"); err != nil || got != secret {
			t.Fatalf("%q, %v", got, err)
		}
		if s.count() != 2+want {
			t.Errorf("%d requests", s.count())
		}
	}
}

// Whatever an answer is, what it may have held is in no error.
func TestTheSecretIsInNoError(t *testing.T) {
	for _, body := range []string{`{"Parameter":"` + secret + `"}`, `{"Parameter":{"Value":["` + secret + `"]}}`, `{"Parameter":{"Valu":"` + secret + `"}}`, secret} {
		newService(t, answer{status: 200, body: body})
		if _, err := New().Parameter(t.Context(), "eu-west-1", "/s"); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", body, err)
		}
	}
	for _, body := range []string{`{"AccessKeyId":"` + secret + `"}`, `{"SecretAccessKey":"` + secret + `"`, `{"SecretAccessKey":["` + secret + `"]}`} {
		if _, err := parseRole([]byte(body)); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestInvoke(t *testing.T) {
	s := newService(t, answer{status: 202})
	if err := New().Invoke(t.Context(), "eu-west-1", "boxer-shop-logic", []byte(`{"version":1}`)); err != nil {
		t.Fatal(err)
	}
	r := s.asked[0]
	if r.URL.Path != "/2015-03-31/functions/boxer-shop-logic/invocations" || r.Header.Get("X-Amz-Invocation-Type") != "Event" || s.bodies[0] != `{"version":1}` {
		t.Errorf("asked %s with %v, %s", r.URL, r.Header, s.bodies[0])
	}
	for _, tt := range []struct {
		first answer
		kind  error
		want  string
	}{
		{answer{429, "TooManyRequestsException", `{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}`}, ErrThrottled, "Rate Exceeded"},
		{answer{404, "ResourceNotFoundException", `{"Type":"User","Message":"Function not found: arn:aws:lambda:eu-west-1:1:function:f"}`}, ErrNotFound, "Function not found"},
		{answer{403, "AccessDeniedException", `{"Message":"no identity-based policy allows the lambda:InvokeFunction action"}`}, ErrDenied, "allow lambda:InvokeFunction on function f in eu-west-1"},
		{answer{409, "ResourceConflictException", `{"Message":"The operation cannot be performed at this time. The function is currently in the following state: Pending"}`}, nil, "Pending"},
	} {
		s := newService(t, tt.first)
		err := New().Invoke(t.Context(), "eu-west-1", "f", nil)
		if err == nil || tt.kind != nil && !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) || s.count() != 1 {
			t.Errorf("%+v gives %v after %d tries", tt.first, err, s.count())
		}
	}
	if err := New().Invoke(t.Context(), "eu-west-1", "f", make([]byte, MaxEvent+1)); err == nil || !strings.Contains(err.Error(), "1048577 bytes, and 1048576 are the most") {
		t.Errorf("too large: %v", err)
	}
}

func TestEndpoints(t *testing.T) {
	plainEnvironment(t)
	at := func(service, region string) string {
		u, err := endpoint(service, region)
		if err != nil {
			return err.Error()
		}
		return u.String()
	}
	for _, tt := range [][3]string{
		{"ssm", "eu-west-1", "https://ssm.eu-west-1.amazonaws.com"}, {"lambda", "cn-north-1", "https://lambda.cn-north-1.amazonaws.com.cn"},
	} {
		if got := at(tt[0], tt[1]); got != tt[2] {
			t.Errorf("%s, want %s", got, tt[2])
		}
	}
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:5000/all")
	t.Setenv("AWS_ENDPOINT_URL_SSM", "http://127.0.0.1:5001")
	if got := at("ssm", "x") + " " + at("lambda", "x"); got != "http://127.0.0.1:5001 http://127.0.0.1:5000/all" {
		t.Error(got)
	}
	t.Setenv("AWS_ENDPOINT_URL_SSM", "ssm.example")
	if got := at("ssm", "x"); !strings.Contains(got, `AWS_ENDPOINT_URL_SSM "ssm.example": want http://HOST`) {
		t.Error(got)
	}
}

func TestNobodyAnswers(t *testing.T) {
	newService(t, answer{status: 200})
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := New().Parameter(ctx, "eu-west-1", "/s")
	if err == nil || !strings.Contains(err.Error(), "at 127.0.0.1:1: no answer: dial tcp 127.0.0.1:1: connect: connection refused: check that this node has a way out") {
		t.Error(err)
	}
}

func FuzzRefusal(f *testing.F) {
	f.Add(400, "", []byte(`{"__type":"com.amazonaws.ssm#ParameterNotFound","message":"x"}`))
	f.Add(429, "TooManyRequestsException:http://internal", []byte(`{"Message":"a\nb"}`))
	f.Add(0, "\x00", []byte(`<html>`))
	f.Fuzz(func(t *testing.T, status int, kind string, body []byte) {
		e := refusal(status, kind, body)
		if e.Code == "" || strings.ContainsAny(e.Error(), "\n\r\x1b\x00") || len(e.Error()) > 3*maxMessage {
			t.Errorf("%q", e.Error())
		}
	})
}

func FuzzParseParameter(f *testing.F) {
	f.Add([]byte(parameterIs(secret)))
	f.Add([]byte(`{"Parameter":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if value, err := parseParameter(data); err != nil && value != "" {
			t.Errorf("%q, %v", value, err)
		}
	})
}
