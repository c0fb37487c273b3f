// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
)

// MaxEvent is what an asynchronous launch may carry, in bytes.
const MaxEvent = 1 << 20

// Parameter reads a parameter of Systems Manager, decrypted. What it read is in no
// error.
func (c *Client) Parameter(ctx context.Context, region, name string) (string, error) {
	body, err := json.Marshal(map[string]any{"Name": name, "WithDecryption": true})
	if err != nil {
		return "", err
	}
	r := request{
		service: "ssm", region: region, action: "ssm:GetParameter", resource: fmt.Sprintf("parameter %s in %s", name, region),
		path:   "/",
		header: map[string]string{"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "AmazonSSM.GetParameter"},
		body:   body,
	}
	data, err := c.call(ctx, r)
	if err != nil {
		return "", err
	}
	value, err := parseParameter(data)
	if err != nil {
		return "", fmt.Errorf("%s of %s: %w", r.action, r.resource, err)
	}
	return value, nil
}

func parseParameter(data []byte) (string, error) {
	var said struct {
		Parameter *struct {
			Value *string
		}
	}
	if json.Unmarshal(data, &said) != nil || said.Parameter == nil || said.Parameter.Value == nil {
		return "", errors.New("the answer has no value: is that endpoint Systems Manager?")
	}
	return *said.Parameter.Value, nil
}

// Invoke sends a function one asynchronous event. That it is throttled is for the
// caller to wait out (ErrThrottled). What is not answered is sent again: Lambda may
// deliver an event twice anyway.
func (c *Client) Invoke(ctx context.Context, region, function string, event []byte) error {
	if len(event) > MaxEvent {
		return fmt.Errorf("lambda:InvokeFunction of function %s in %s: the launch event has %d bytes, and %d are the most: shorten files, command or environment, or put them into the package",
			function, region, len(event), MaxEvent)
	}
	_, err := c.call(ctx, request{
		service: "lambda", region: region, action: "lambda:InvokeFunction", resource: fmt.Sprintf("function %s in %s", function, region),
		path:   "/2015-03-31/functions/" + url.PathEscape(function) + "/invocations",
		header: map[string]string{"Content-Type": "application/json", "X-Amz-Invocation-Type": "Event"},
		body:   event, hasty: true,
	})
	return err
}
