// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// systemsManager denies the first questions, as it does while a role is new.
func systemsManager(t *testing.T, denied int32, refusal, value string) *atomic.Int32 {
	t.Helper()
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) <= denied {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, refusal)
			return
		}
		fmt.Fprintf(w, `{"Parameter":{"Value":%q}}`, value)
	}))
	t.Cleanup(s.Close)
	t.Setenv("AWS_ENDPOINT_URL_SSM", s.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "key")
	return &asked
}

const (
	denial   = `{"__type":"AccessDeniedException","Message":"not authorized"}`
	aSecret  = "a secret of some thirty letters"
	notFound = `{"__type":"ParameterNotFound"}`
)

func TestSecretOnSystemsManager(t *testing.T) {
	cfg := config.Node{Kind: config.KindVM, SecretRef: "ssm:eu-west-1/boxer/shop/secret"}
	asked := systemsManager(t, 2, denial, aSecret+"\n")
	var log bytes.Buffer
	secret, err := Secret(t.Context(), cfg, zerolog.New(&log))
	if err != nil || string(secret) != aSecret || asked.Load() != 3 {
		t.Errorf("%q, %v after %d questions", secret, err, asked.Load())
	}
	if !strings.Contains(log.String(), "cannot be read yet") || strings.Contains(log.String(), aSecret) {
		t.Errorf("the log says %s", log.String())
	}
	systemsManager(t, 0, "", "short")
	if _, err := Secret(t.Context(), cfg, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "ssm:eu-west-1/boxer/shop/secret: 5 bytes are too few") {
		t.Errorf("a short one: %v", err)
	}
}

// Who is not let in says so when its time is over, with what would help.
func TestSecretThatIsNeverGiven(t *testing.T) {
	cfg := config.Node{Kind: config.KindFunction, SecretRef: "ssm:eu-west-1/boxer/shop/secret"}
	for _, tt := range []struct{ refusal, want string }{
		{denial, "allow ssm:GetParameter on parameter /boxer/shop/secret in eu-west-1 in this node's role"},
		{`{"__type":"ThrottlingException"}`, "parameter /boxer/shop/secret in eu-west-1: ThrottlingException"},
		{notFound, "parameter /boxer/shop/secret in eu-west-1: ParameterNotFound"},
	} {
		asked := systemsManager(t, 1000, tt.refusal, "")
		ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
		_, err := Secret(ctx, cfg, zerolog.Nop())
		cancel()
		if err == nil || !strings.Contains(err.Error(), "network secret: ssm:GetParameter of ") ||
			!strings.Contains(err.Error(), tt.want) || asked.Load() < 2 {
			t.Errorf("%v after %d questions", err, asked.Load())
		}
	}
}

// A guest has the credentials that any program of a function has, and nothing of what
// only the supervisor is for.
func TestWhatAGuestInherits(t *testing.T) {
	w := newWorld(t)
	s := w.start(config.Node{Kind: config.KindVM, Slot: "a", Argv: []string{"env"}}, func(task *nodeTask) {
		task.Environment = []string{
			"AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=key", "AWS_SESSION_TOKEN=t", "AWS_REGION=eu-west-1",
			"AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001", "NOTIFY_SOCKET=/run/x", "BOXER_LOG=info",
		}
	})
	w.member("a", in(cluster.StateExited))
	for _, want := range []string{"AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SESSION_TOKEN=t", "AWS_REGION=eu-west-1"} {
		if !strings.Contains(s.output()+"\n", want+"\n") { // the order is by chance
			t.Errorf("the guest has not %s", want)
		}
	}
	for _, not := range []string{"AWS_LAMBDA_RUNTIME_API", "NOTIFY_SOCKET", "BOXER_LOG", "letters"} {
		if strings.Contains(s.output(), not) {
			t.Errorf("the guest has %s:\n%s", not, s.output())
		}
	}
}
