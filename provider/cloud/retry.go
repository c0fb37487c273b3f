// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// unseen is how long what is waited for may not be seen.
const unseen = 2 * time.Minute

// propagation is how long IAM may take until all of AWS knows a new role.
const propagation = 2 * time.Minute

// retry runs do until it succeeds, fails for good, or limit is over: as long as
// again says that its error passes. limit is for beginning again: AWS may be busy for
// longer, which is for the SDK to wait for.
func (c *Client) retry(ctx context.Context, limit time.Duration, again func(error) bool, do func(context.Context) error) error {
	repeating, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for pause := c.Pause; ; pause = min(2*pause, 10*c.Pause) {
		err := do(ctx)
		if err != nil && last != nil && ctx.Err() != nil && code(err) == "" {
			return last // cut short: what AWS said before says more
		}
		if err == nil || !again(err) {
			return err
		}
		last = err
		if rest(repeating, pause) != nil {
			return err // what AWS said, rather than that time is over
		}
	}
}

// rest waits, or says that there is no time to.
func rest(ctx context.Context, pause time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// propagated runs do, which uses a role or instance profile that may be new, until
// IAM has told the rest of AWS about it.
func (c *Client) propagated(ctx context.Context, do func(context.Context) error) error {
	return c.retry(ctx, propagation, propagating, do)
}

// unpropagated are errors that a new role causes for a while: by type and by
// message, since the types alone are also those of real mistakes.
var unpropagated = [][2]string{
	{"InvalidParameterValueException", "cannot be assumed by Lambda"},
	{"InvalidParameterValueException", "execution role does not have permissions"},
	{"InvalidParameterValueException", "KMS key is invalid for CreateGrant"},
	{"InvalidParameterValue", "Invalid IAM Instance Profile"},
	{"InvalidParameterValue", "iamInstanceProfile"},
	{"InvalidParameterValue", "has no associated IAM Roles"},
	{"MalformedPolicyDocument", "Invalid principal in policy"},
	{"MalformedPolicyDocumentException", "Invalid principal in policy"},
	{"NoSuchEntity", "cannot be found"},
	{"NoSuchEntityException", "cannot be found"},
}

func propagating(err error) bool {
	for _, known := range unpropagated {
		if says(err, known[0], known[1]) {
			return true
		}
	}
	return false
}

// settled runs do, which uses an object of EC2 that was just made, until all of EC2
// knows it: its own errors of that are *.NotFound.
func (c *Client) settled(ctx context.Context, do func(context.Context) error) error {
	return c.retry(ctx, time.Minute, func(err error) bool { return missing(err) || propagating(err) }, do)
}

// state is what a look of a waiter found.
type state struct {
	Now    string // in AWS's words: "pending"
	Reason string // AWS's, if it gives one
	Done   bool
	Failed bool // it will never be done
}

// await looks until what is waited for is there. Errors say how it was last. That AWS
// is busy for a while, or does not answer, says nothing about it.
func (c *Client) await(ctx context.Context, what string, look func(context.Context) (state, error)) error {
	start, last := time.Now(), state{Now: "unknown"}
	seen := start
	for pause := c.Pause; ; pause = min(2*pause, 5*c.Pause) {
		s, err := look(ctx)
		if err == nil {
			seen = time.Now()
		}
		switch {
		case err != nil && ctx.Err() == nil && (!Passing(err) || time.Since(seen) > unseen):
			return failed("waiting for", what, err)
		case err == nil && s.Done:
			return nil
		case err == nil && s.Failed:
			return &Error{Doing: "waiting for", On: what, Err: errors.New(s.words())}
		case err == nil:
			last = s
		}
		if rest(ctx, pause) != nil {
			waited := time.Since(start).Round(time.Second)
			return &Error{Doing: "waiting for", On: what, Err: fmt.Errorf("still %s after %s: %w", last.words(), waited, ctx.Err()),
				Remedy: "Give it more time with timeouts, then apply again."}
		}
	}
}

func (s state) words() string {
	if s.Reason == "" {
		return s.Now
	}
	return s.Now + " (" + s.Reason + ")"
}
