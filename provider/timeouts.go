// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// Operations that may be given a time.
const (
	opCreate = "create"
	opUpdate = "update"
	opDelete = "delete"
)

// How long operations may take unless a resource says otherwise.
var defaultTimeouts = map[string]time.Duration{
	opCreate: 2 * time.Minute,
	opUpdate: 2 * time.Minute,
	opDelete: 2 * time.Minute,
}

// awsTimeouts are those on aws, where machines boot, and give back what they had
// only when they have ended.
var awsTimeouts = map[string]time.Duration{
	opCreate: 10 * time.Minute,
	opUpdate: 10 * time.Minute,
	opDelete: 20 * time.Minute,
}

var timeoutTypes = map[string]string{
	opCreate: "to create it and, unless `wait_for_ready` is false, for its guests to run",
	opUpdate: "to change it in place; function nodes take it for each replica",
	opDelete: "to remove it",
}

func timeoutsAttribute(operations ...string) schema.Attribute {
	attributes := map[string]schema.Attribute{}
	for _, op := range operations {
		attributes[op] = schema.StringAttribute{
			Optional: true,
			MarkdownDescription: fmt.Sprintf("Time %s, such as `90s` or `5m`. Default `%s`, on `aws` `%s`.", timeoutTypes[op],
				strings.TrimSuffix(defaultTimeouts[op].String(), "0s"), strings.TrimSuffix(awsTimeouts[op].String(), "0s")),
			Validators: []validator.String{validDuration()},
		}
	}
	return schema.SingleNestedAttribute{
		Optional:            true,
		MarkdownDescription: "How long operations may take before they fail.",
		Attributes:          attributes,
	}
}

func validDuration() validator.String {
	return stringCheck{"Invalid duration", "a duration such as 90s or 5m", func(text string) error {
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is no duration: write a number and a unit, such as 90s or 5m", text)
		}
		if d <= 0 {
			return fmt.Errorf("%q is no time at all: write one such as 90s or 5m", text)
		}
		return nil
	}}
}

// limitKey is under which a context says how long the operation may take.
type limitKey struct{}

// awsKey is under which a context says that the operation is on aws.
type awsKey struct{}

// on has within give an operation the time that it needs on p.
func on(ctx context.Context, p platform) context.Context {
	return context.WithValue(ctx, awsKey{}, onAWS(p))
}

// within gives an operation its time.
func within(ctx context.Context, timeouts types.Object, op string) (context.Context, context.CancelFunc) {
	limit := defaultTimeouts[op]
	if aws, _ := ctx.Value(awsKey{}).(bool); aws {
		limit = awsTimeouts[op]
	}
	if text, ok := timeouts.Attributes()[op].(types.String); ok {
		if d, err := time.ParseDuration(text.ValueString()); err == nil && d > 0 {
			limit = d
		}
	}
	return context.WithTimeout(context.WithValue(ctx, limitKey{}, limit), limit)
}

// limitOf is how long the operation of ctx may take in all.
func limitOf(ctx context.Context) time.Duration {
	if limit, ok := ctx.Value(limitKey{}).(time.Duration); ok {
		return limit
	}
	return defaultTimeouts[opCreate]
}
