// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/runtime/aws"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// How long a node waits for what AWS does not know yet, or what its machine does not
// have yet (a route, a name server, metadata). A role, and what it may do, takes
// up to two minutes to be known everywhere; a function that takes longer than
// its controller is patient (20 s) has another one launched.
const (
	secretPatience   = 2 * time.Minute
	functionPatience = 15 * time.Second
	absentPatience   = 10 * time.Second // for a parameter that was written just now
	tryTime          = 10 * time.Second // and then says why it waits
	secretPause      = 500 * time.Millisecond
	longSecretPause  = 5 * time.Second
)

// Secret reads the network's secret from where the document says: a file, or Systems
// Manager, as the role of this machine or function.
func Secret(ctx context.Context, cfg config.Node, log zerolog.Logger) ([]byte, error) {
	region, name, ok := cfg.SecretParameter()
	if !ok {
		return cfg.Secret()
	}
	patience := secretPatience
	if cfg.Kind == config.KindFunction {
		patience = functionPatience
	}
	client := aws.New()
	text, err := readPatiently(ctx, patience, log, func(ctx context.Context) (string, error) {
		return client.Parameter(ctx, region, name)
	})
	if err != nil {
		return nil, fmt.Errorf("network secret: %w", err)
	}
	return config.CheckSecret(cfg.SecretRef, text)
}

// readPatiently reads again while what is new may not be known everywhere.
func readPatiently(ctx context.Context, patience time.Duration, log zerolog.Logger, read func(context.Context) (string, error)) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	var before error
	for pause := secretPause; ; pause = min(2*pause, longSecretPause) {
		trying, cancel := context.WithTimeout(ctx, tryTime)
		text, err := read(trying)
		cancel()
		if err == nil || !mayPass(err, time.Since(began)) {
			return text, err
		}
		if before != nil && ctx.Err() != nil { // cut short: what was said before says more
			return "", fmt.Errorf("%w (tried for %s)", before, time.Since(began).Round(time.Second))
		}
		before = err
		log.Warn().Err(err).Msg("the network's secret cannot be read yet; trying again")
		wait := pause/2 + time.Duration(rand.Int64N(int64(pause)))
		if deadline, _ := ctx.Deadline(); time.Until(deadline) <= wait {
			return "", fmt.Errorf("%w (tried for %s)", err, time.Since(began).Round(time.Second))
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return "", err
		}
	}
}

func mayPass(err error, after time.Duration) bool {
	for _, kind := range []error{aws.ErrDenied, aws.ErrNoCredentials, aws.ErrThrottled, aws.ErrUnreachable} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return errors.Is(err, aws.ErrNotFound) && after < absentPatience
}
