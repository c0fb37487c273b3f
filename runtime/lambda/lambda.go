// SPDX-License-Identifier: Apache-2.0

// Package lambda is the custom runtime of function nodes. One event is one
// node's life: the event is the node's configuration, the invocation stays
// open while the guest runs (a sandbox without one is frozen), and before the
// deadline the node drains and leaves.
package lambda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	aws "github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/node"
)

const (
	apiVariable = "AWS_LAMBDA_RUNTIME_API"
	lastOutput  = 2048 // bytes of a failed guest's output to quote
)

// Options of Run.
type Options struct {
	Library string   // libboxer.so; empty: beside this program, or in ../lib
	Stdout  *os.File // all the guest prints; nil: this process's stdout
	Version string
	Logger  zerolog.Logger
}

// Run serves events until the platform ends the sandbox. It returns only when
// there is no platform to serve.
func Run(ctx context.Context, o Options) error {
	if os.Getenv(apiVariable) == "" {
		return fmt.Errorf("not inside a function: %s is not set; `boxer function` is started by the layer's bootstrap", apiVariable)
	}
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	if err := check(o.Library); err != nil {
		return errors.Join(err, reportInit(ctx, err))
	}
	// With SIGTERM: else the platform ends a sandbox without a word. Only the
	// node under way handles it, this process ends by it.
	aws.StartWithOptions(&handler{o: o}, aws.WithContext(ctx), aws.WithEnableSIGTERM())
	return errors.New("the platform's runtime interface ended")
}

// handler keeps the secret from one event of its environment to the next: when many
// functions start at once, Systems Manager answers 40 a second (its default quota).
type handler struct {
	o         Options
	secretRef string
	secret    []byte
}

// Invoke lives one node's life. Its response says how it ended.
func (h *handler) Invoke(ctx context.Context, event []byte) ([]byte, error) {
	log := h.o.Logger
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		log = log.With().Str("request", lc.AwsRequestID).Logger()
	}
	cfg, err := parse(event)
	if err != nil {
		return nil, fmt.Errorf("launch event: %w", err)
	}
	secret, err := h.readSecret(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	deadline, bounded := ctx.Deadline()
	if bounded { // a short life is no shorter than its end
		cfg.DeadlineMarginMS = min(cfg.DeadlineMarginMS, int(max(0, time.Until(deadline)/2).Milliseconds()))
	}
	var result node.Result
	var before int64
	if info, err := h.o.Stdout.Stat(); err == nil {
		before = info.Size()
	}
	found := look()
	defer func() { found.restore(log) }()
	// Not ctx: it ends with the deadline, before which the node leaves by itself.
	code, err := node.Run(context.WithoutCancel(ctx), node.Options{
		Config: cfg, Secret: secret, Library: h.o.Library, Version: h.o.Version,
		Stdout: h.o.Stdout, Deadline: deadline, Logger: log,
		Ended: func(ended node.Result) { result = ended },
	})
	if err != nil {
		h.secretRef = "" // it may have been changed
		return nil, quote(err, h.o.Stdout, before)
	}
	if code != 0 {
		return nil, quote(fmt.Errorf("node %q: the guest ended with exit status %d", cfg.Slot, code), h.o.Stdout, before)
	}
	log.Info().Str("reason", result.Reason).Msg("invocation ends")
	return json.Marshal(result)
}

func (h *handler) readSecret(ctx context.Context, cfg config.Node, log zerolog.Logger) ([]byte, error) {
	if h.secretRef == cfg.SecretRef && strings.HasPrefix(cfg.SecretRef, "ssm:") {
		return h.secret, nil
	}
	if deadline, ok := ctx.Deadline(); ok { // in time to say why
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-time.Second))
		defer cancel()
	}
	secret, err := node.Secret(ctx, cfg, log)
	if err == nil {
		h.secretRef, h.secret = cfg.SecretRef, secret
	}
	return secret, err
}

// parse refuses events that are not for a function node.
func parse(event []byte) (config.Node, error) {
	cfg, err := config.Parse(event)
	if err != nil {
		return cfg, err
	}
	if cfg.Kind != config.KindFunction {
		return cfg, fmt.Errorf("kind %q: a function runs nodes of kind %q only", cfg.Kind, config.KindFunction)
	}
	if cfg.DeadlineMarginMS < 0 || time.Duration(cfg.DeadlineMarginMS)*time.Millisecond > 10*time.Minute {
		return cfg, fmt.Errorf("deadline_margin_ms %d: want 0 to 600000", cfg.DeadlineMarginMS)
	}
	return cfg, nil
}

// quote adds what the guest printed last, where its output can be read back.
func quote(err error, output *os.File, before int64) error {
	info, statErr := output.Stat()
	if statErr != nil || !info.Mode().IsRegular() {
		return err
	}
	file, openErr := os.Open(fmt.Sprintf("/proc/self/fd/%d", output.Fd()))
	if openErr != nil {
		return err
	}
	defer file.Close()
	from := max(before, info.Size()-lastOutput)
	data, _ := io.ReadAll(io.NewSectionReader(file, from, info.Size()-from))
	text := strings.TrimSpace(strings.ToValidUTF8(string(data), "?"))
	if text == "" {
		return err
	}
	return fmt.Errorf("%w; its last output: %s", err, text)
}
