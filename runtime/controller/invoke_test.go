// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// A seed on AWS launches functions by their names there.
func TestLambdaIsInvoked(t *testing.T) {
	status, body := http.StatusAccepted, ""
	var got *http.Request
	var event string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		got, event = r, string(data)
		if status != http.StatusAccepted {
			w.Header().Set("X-Amzn-Errortype", body)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"Message":"said by Lambda"}`)
	}))
	defer s.Close()
	t.Setenv("AWS_ENDPOINT_URL_LAMBDA", s.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "key")
	invoker, err := NewInvoker(config.Node{Invoke: "lambda:eu-west-1/boxer-shop-"})
	if err != nil {
		t.Fatal(err)
	}
	if err := invoker.Invoke(t.Context(), "logic", []byte(`{"version":1}`)); err != nil {
		t.Fatal(err)
	}
	if got.URL.Path != "/2015-03-31/functions/boxer-shop-logic/invocations" || got.Header.Get("X-Amz-Invocation-Type") != "Event" ||
		!strings.Contains(got.Header.Get("Authorization"), "/eu-west-1/lambda/aws4_request") || event != `{"version":1}` {
		t.Errorf("%s with %v: %s", got.URL, got.Header, event)
	}
	for _, tt := range []struct {
		status int
		kind   string
		slow   bool
		want   string
	}{
		{http.StatusTooManyRequests, "TooManyRequestsException", true, "said by Lambda"},
		{http.StatusNotFound, "ResourceNotFoundException", false, "function boxer-shop-logic in eu-west-1: ResourceNotFoundException: said by Lambda"},
		{http.StatusForbidden, "AccessDeniedException", false, "allow lambda:InvokeFunction on function boxer-shop-logic"},
	} {
		status, body = tt.status, tt.kind
		err := invoker.Invoke(t.Context(), "logic", nil)
		if err == nil || errors.Is(err, ErrThrottled) != tt.slow || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.kind, err)
		}
	}
	if _, err := NewInvoker(config.Node{Invoke: "http://here"}); err == nil {
		t.Error("any place is taken")
	}
}
