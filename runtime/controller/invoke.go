// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/boxer-overlay/boxer/runtime/aws"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// maxAnswer bounds what is read of a refusal.
const maxAnswer = 16 << 10

// lambdaAPI is the Invoke API (AWS Lambda API reference, Invoke) as the local
// cloud serves it.
type lambdaAPI struct{ client *http.Client }

// NewInvoker uses the Invoke API where a seed's document says: at unix:/path, a
// socket (who may connect there may launch), or Lambda's in a region.
func NewInvoker(n config.Node) (Invoker, error) {
	if region, prefix, ok := n.InvokeLambda(); ok {
		return lambdaInvoker{aws.New(), region, prefix}, nil
	}
	path, ok := strings.CutPrefix(n.Invoke, "unix:")
	if !ok || !filepath.IsAbs(path) {
		return nil, fmt.Errorf("invoke %q: want unix:/path, or lambda:REGION/PREFIX", n.Invoke)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		// A socket's path has 107 bytes at most, a directory's may have more.
		dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		var d net.Dialer
		return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
	}
	return lambdaAPI{&http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 8}}}, nil
}

// Invoke implements Invoker.
func (a lambdaAPI) Invoke(ctx context.Context, function string, payload []byte) error {
	where := "http://lambda/2015-03-31/functions/" + url.PathEscape(function) + "/invocations"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, where, bytes.NewReader(payload))
	if err != nil {
		return fmt.Errorf("invoke %q: %w", function, err)
	}
	r.Header.Set("X-Amz-Invocation-Type", "Event")
	answer, err := a.client.Do(r)
	if err != nil {
		return fmt.Errorf("invoke %q: the platform does not answer: %w", function, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusAccepted {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &said) != nil || said.Message == "" {
		said.Message = answer.Status
	}
	if answer.StatusCode == http.StatusTooManyRequests {
		return fmt.Errorf("invoke %q: %w: %s", function, ErrThrottled, said.Message)
	}
	return fmt.Errorf("invoke %q: %s", function, said.Message)
}

// lambdaInvoker is Lambda itself. An event may reach a function twice: the node that
// comes second is refused by the seeds.
type lambdaInvoker struct {
	client         *aws.Client
	region, prefix string
}

// Invoke implements Invoker.
func (a lambdaInvoker) Invoke(ctx context.Context, function string, payload []byte) error {
	err := a.client.Invoke(ctx, a.region, a.prefix+function, payload)
	switch {
	case errors.Is(err, aws.ErrThrottled):
		return fmt.Errorf("invoke %q: %w: %w", function, ErrThrottled, err)
	case err != nil:
		return fmt.Errorf("invoke %q: %w", function, err)
	}
	return nil
}
