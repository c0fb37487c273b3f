// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

const (
	// functionPatience is how long a function may be Pending. Functions in a VPC wait
	// for network interfaces.
	functionPatience = 10 * time.Minute

	// settling is how long a function that was just made may be unknown.
	settling = 20 * time.Second

	// One event is one node's life: nobody repeats it, and one that could not be
	// delivered for a minute is too late.
	eventRetries = 0
	eventAge     = 60

	maxLayers = 5
	maxName   = 64      // of a function
	handler   = "boxer" // Lambda wants one; our runtime has no use for it
)

// Code is what a function runs: one of Zip, Bucket and Key, Image.
type Code struct {
	Zip                  []byte
	Bucket, Key, Version string
	Image                string
}

// FunctionSpec is a function to be.
type FunctionSpec struct {
	Network, Node, Name string // Name: in Lambda
	Role                string // its ARN
	Arch                string
	MemoryMB, TimeoutS  int
	EphemeralMB         int
	Code                Code
	Layers              []string
	Environment         map[string]string
	Subnets, Groups     []string
	Reserved            *int32
	LogGroup            string
	LogDays             int
	Tags                map[string]string // the user's
}

func (s *FunctionSpec) allTags() map[string]string {
	return Tags(s.Network, s.Node, PartFunction, s.Tags)
}

// Function is one there is.
type Function struct {
	ARN, Name, Role, Arch           string
	MemoryMB, TimeoutS, EphemeralMB int
	CodeSHA256                      string // base64, of the zip that Lambda has
	Image                           string
	Layers                          []string
	Subnets, Groups                 []string
	Environment                     map[string]string
	Reserved                        *int32
	State, Reason                   string
	Tags                            map[string]string
}

// FindFunction reads a function.
func (c *Client) FindFunction(ctx context.Context, name string) (Function, error) {
	out, err := c.Lambda.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: aws.String(name)})
	if missing(err) {
		return Function{}, &Error{Doing: "looking for function", On: name, Err: ErrNotFound}
	}
	if err != nil {
		return Function{}, failed("looking for function", name, err)
	}
	if e := out.TagsError; e != nil { // without its tags it would be somebody else's
		return Function{}, &Error{Doing: "reading the tags of function", On: name, Err: fmt.Errorf("%s: %s", aws.ToString(e.ErrorCode), aws.ToString(e.Message)),
			Remedy: "Who applies needs lambda:ListTags: \"boxer iam-policy\" prints all that is needed."}
	}
	f := functionOf(out.Configuration)
	f.Tags = out.Tags
	if out.Code != nil {
		f.Image = aws.ToString(out.Code.ImageUri)
	}
	if out.Concurrency != nil {
		f.Reserved = out.Concurrency.ReservedConcurrentExecutions
	}
	return f, nil
}

func functionOf(c *types.FunctionConfiguration) Function {
	f := Function{
		ARN: aws.ToString(c.FunctionArn), Name: aws.ToString(c.FunctionName), Role: aws.ToString(c.Role), Arch: "amd64",
		MemoryMB: int(aws.ToInt32(c.MemorySize)), TimeoutS: int(aws.ToInt32(c.Timeout)), EphemeralMB: 512,
		CodeSHA256: aws.ToString(c.CodeSha256), State: string(c.State), Reason: aws.ToString(c.StateReason),
	}
	if slices.Contains(c.Architectures, types.ArchitectureArm64) {
		f.Arch = "arm64"
	}
	if c.EphemeralStorage != nil {
		f.EphemeralMB = int(aws.ToInt32(c.EphemeralStorage.Size))
	}
	for _, l := range c.Layers {
		f.Layers = append(f.Layers, aws.ToString(l.Arn))
	}
	if c.VpcConfig != nil {
		f.Subnets, f.Groups = c.VpcConfig.SubnetIds, c.VpcConfig.SecurityGroupIds
	}
	if c.Environment != nil {
		f.Environment = c.Environment.Variables
	}
	return f
}

// CreateFunction makes the log group and the function, waits until it can be invoked,
// and sets what its invocations need. When it fails it returns whether something
// may be left.
func (c *Client) CreateFunction(ctx context.Context, s FunctionSpec) (made bool, err error) {
	if err := s.check(); err != nil {
		return false, err
	}
	tags := s.allTags()
	logTags := maps.Clone(tags)
	logTags[TagPart] = PartLogs
	if made, err := c.EnsureLogGroup(ctx, s.LogGroup, s.LogDays, logTags); err != nil {
		return made, err
	}
	in := &lambda.CreateFunctionInput{
		FunctionName: aws.String(s.Name), Role: aws.String(s.Role), Architectures: s.architectures(),
		Description: aws.String(fmt.Sprintf("Boxer function node %s of network %s", s.Node, s.Network)),
		MemorySize:  aws.Int32(int32(s.MemoryMB)), Timeout: aws.Int32(int32(s.TimeoutS)),
		EphemeralStorage: &types.EphemeralStorage{Size: aws.Int32(int32(s.EphemeralMB))},
		Environment:      s.environment(), VpcConfig: s.vpc(), Tags: tags,
		LoggingConfig: &types.LoggingConfig{LogGroup: aws.String(s.LogGroup)},
	}
	if s.Code.Image != "" {
		in.PackageType, in.Code = types.PackageTypeImage, &types.FunctionCode{ImageUri: aws.String(s.Code.Image)}
	} else {
		in.PackageType, in.Runtime, in.Handler, in.Layers = types.PackageTypeZip, types.RuntimeProvidedal2023, aws.String(handler), s.Layers
		in.Code = &types.FunctionCode{ZipFile: s.Code.Zip, S3Bucket: optional(s.Code.Bucket), S3Key: optional(s.Code.Key), S3ObjectVersion: optional(s.Code.Version)}
	}
	err = c.propagated(ctx, func(ctx context.Context) error {
		_, err := c.Lambda.CreateFunction(ctx, in)
		return err
	})
	if is(err, "ResourceConflictException") {
		return false, &Error{Doing: "creating function", On: s.Name, Err: ErrForeign}
	}
	if err != nil {
		return true, functionProblem("creating", s, err)
	}
	if err := c.awaitFunction(ctx, s.Name); err != nil {
		return true, err
	}
	return true, c.setInvocations(ctx, s)
}

func (s *FunctionSpec) check() error {
	if len(s.Layers) > maxLayers {
		return &Error{Doing: "creating function", On: s.Name, Err: fmt.Errorf("%d layers are more than the %d that Lambda allows", len(s.Layers), maxLayers)}
	}
	size := 0
	for name, value := range s.Environment {
		size += len(name) + len(value)
	}
	if size > 4<<10 {
		return &Error{Doing: "creating function", On: s.Name, Err: fmt.Errorf("its own environment has %d bytes, and Lambda allows 4096", size)}
	}
	return nil
}

// environment is there if it is empty, too: an update takes variables away so.
func (s *FunctionSpec) environment() *types.Environment {
	variables := maps.Clone(s.Environment)
	if variables == nil {
		variables = map[string]string{}
	}
	return &types.Environment{Variables: variables}
}

func (s *FunctionSpec) architectures() []types.Architecture {
	if s.Arch == "arm64" {
		return []types.Architecture{types.ArchitectureArm64}
	}
	return []types.Architecture{types.ArchitectureX8664}
}

// vpc is empty, not nil, for none: an update takes a function out of its VPC so.
func (s *FunctionSpec) vpc() *types.VpcConfig {
	if len(s.Subnets) == 0 {
		return &types.VpcConfig{SubnetIds: []string{}, SecurityGroupIds: []string{}}
	}
	return &types.VpcConfig{SubnetIds: s.Subnets, SecurityGroupIds: s.Groups}
}

// functionProblem adds what to do where AWS's own words do not say it.
func functionProblem(doing string, s FunctionSpec, err error) error {
	known := failed(doing+" function", s.Name, err)
	var e *Error
	if !errors.As(known, &e) || e.Remedy != "" {
		return known
	}
	switch text := strings.ToLower(reason(err)); {
	case propagating(err):
		e.Remedy = "IAM knows the role " + s.Role + " for two minutes and Lambda still may not use it: check its trust policy (lambda.amazonaws.com) and its permissions."
	case strings.Contains(text, "memorysize"):
		e.Remedy = "New accounts have functions of 3008 MB at most, until AWS Support raises it: choose a smaller memory_size."
	case strings.Contains(text, "s3") && s.Code.Bucket != "":
		e.Remedy = fmt.Sprintf("The bucket must be in the provider's region, and who applies must be allowed to read s3://%s/%s.", s.Code.Bucket, s.Code.Key)
	case strings.Contains(text, "image") && s.Code.Image != "":
		e.Remedy = "The image must be in ECR of this region, be built for the function's architecture, and Lambda must be allowed to pull it (the repository's policy)."
	}
	return e
}

// awaitFunction waits until a function is neither being made nor changed.
func (c *Client) awaitFunction(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, functionPatience)
	defer cancel()
	began := time.Now()
	return c.await(ctx, "function "+name, func(ctx context.Context) (state, error) {
		out, err := c.Lambda.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: aws.String(name)})
		if missing(err) && time.Since(began) < settling {
			return state{Now: "not known to all of Lambda"}, nil
		}
		if err != nil {
			return state{}, err
		}
		s := state{Now: string(out.State), Reason: join(string(out.StateReasonCode), aws.ToString(out.StateReason))}
		if s.Failed = out.State == types.StateFailed; s.Failed || out.State == types.StatePending {
			return s, nil
		}
		switch out.LastUpdateStatus {
		case types.LastUpdateStatusInProgress, types.LastUpdateStatusFailed:
			s = state{Now: "update " + string(out.LastUpdateStatus), Reason: join(string(out.LastUpdateStatusReasonCode), aws.ToString(out.LastUpdateStatusReason))}
			s.Failed = out.LastUpdateStatus == types.LastUpdateStatusFailed
			return s, nil
		}
		s.Done = true // Active, or Inactive: the next event wakes it
		return s, nil
	})
}

func join(code, text string) string {
	if code == "" || text == "" {
		return code + text
	}
	return code + ": " + text
}

// setInvocations has Lambda deliver each event once and soon, not take replicas that
// launch replicas for a loop, and reserve what is asked for.
func (c *Client) setInvocations(ctx context.Context, s FunctionSpec) error {
	// Lambda refuses them for a moment after another change.
	put := func(do func(context.Context) error) error {
		return c.retry(ctx, propagation, func(err error) bool { return is(err, "ResourceConflictException") }, do)
	}
	name := aws.String(s.Name)
	err := put(func(ctx context.Context) error {
		_, err := c.Lambda.PutFunctionEventInvokeConfig(ctx, &lambda.PutFunctionEventInvokeConfigInput{
			FunctionName: name, MaximumRetryAttempts: aws.Int32(eventRetries), MaximumEventAgeInSeconds: aws.Int32(eventAge),
		})
		return err
	})
	if err != nil {
		return failed("setting how events are delivered to function", s.Name, err)
	}
	err = put(func(ctx context.Context) error {
		_, err := c.Lambda.PutFunctionRecursionConfig(ctx, &lambda.PutFunctionRecursionConfigInput{FunctionName: name, RecursiveLoop: types.RecursiveLoopAllow})
		return err
	})
	if err != nil {
		return failed("allowing recursion of function", s.Name, err)
	}
	err = put(func(ctx context.Context) error {
		if s.Reserved != nil {
			_, err := c.Lambda.PutFunctionConcurrency(ctx, &lambda.PutFunctionConcurrencyInput{FunctionName: name, ReservedConcurrentExecutions: s.Reserved})
			return err
		}
		_, err := c.Lambda.DeleteFunctionConcurrency(ctx, &lambda.DeleteFunctionConcurrencyInput{FunctionName: name})
		if missing(err) {
			return nil
		}
		return err
	})
	known := failed("reserving concurrency of function", s.Name, err)
	var e *Error
	if says(err, "InvalidParameterValueException", "UnreservedConcurrentExecution") && errors.As(known, &e) {
		e.Remedy = "AWS keeps a part of the account's concurrent executions for functions that reserve none: reserve fewer, leave reserved_concurrency out, " +
			"or ask for more concurrent executions in the Service Quotas console."
	}
	return known
}

// UpdateFunction makes a function that there is what s says. Its code is sent only if
// code says so. Lambda takes one change at a time.
func (c *Client) UpdateFunction(ctx context.Context, s FunctionSpec, code bool) error {
	if err := s.check(); err != nil {
		return err
	}
	logTags := s.allTags()
	logTags[TagPart] = PartLogs
	if _, err := c.EnsureLogGroup(ctx, s.LogGroup, s.LogDays, logTags); err != nil {
		return err
	}
	if code {
		in := &lambda.UpdateFunctionCodeInput{
			FunctionName: aws.String(s.Name), Architectures: s.architectures(), ImageUri: optional(s.Code.Image), ZipFile: s.Code.Zip,
			S3Bucket: optional(s.Code.Bucket), S3Key: optional(s.Code.Key), S3ObjectVersion: optional(s.Code.Version),
		}
		if err := c.changed(ctx, s, func(ctx context.Context) error { _, err := c.Lambda.UpdateFunctionCode(ctx, in); return err }); err != nil {
			return err
		}
	}
	in := &lambda.UpdateFunctionConfigurationInput{
		FunctionName: aws.String(s.Name), Role: aws.String(s.Role), MemorySize: aws.Int32(int32(s.MemoryMB)), Timeout: aws.Int32(int32(s.TimeoutS)),
		EphemeralStorage: &types.EphemeralStorage{Size: aws.Int32(int32(s.EphemeralMB))},
		Environment:      s.environment(), VpcConfig: s.vpc(),
	}
	if s.Code.Image == "" {
		in.Layers = s.Layers
	}
	if err := c.changed(ctx, s, func(ctx context.Context) error { _, err := c.Lambda.UpdateFunctionConfiguration(ctx, in); return err }); err != nil {
		return err
	}
	if err := c.setInvocations(ctx, s); err != nil {
		return err
	}
	return c.tagFunction(ctx, s)
}

// changed makes one change once no other is under way, and waits for its end.
func (c *Client) changed(ctx context.Context, s FunctionSpec, do func(context.Context) error) error {
	again := func(err error) bool { return propagating(err) || is(err, "ResourceConflictException") }
	if err := c.retry(ctx, propagation, again, do); err != nil {
		return functionProblem("updating", s, err)
	}
	return c.awaitFunction(ctx, s.Name)
}

func (c *Client) tagFunction(ctx context.Context, s FunctionSpec) error {
	has, err := c.FindFunction(ctx, s.Name)
	if err != nil {
		return err
	}
	set, remove := changes(has.Tags, s.allTags())
	if len(set) > 0 {
		_, err = c.Lambda.TagResource(ctx, &lambda.TagResourceInput{Resource: aws.String(has.ARN), Tags: set})
	}
	if err == nil && len(remove) > 0 {
		_, err = c.Lambda.UntagResource(ctx, &lambda.UntagResourceInput{Resource: aws.String(has.ARN), TagKeys: remove})
	}
	return failed("tagging function", s.Name, err)
}

// Invoke launches a replica: one asynchronous event.
func (c *Client) Invoke(ctx context.Context, name string, event []byte) error {
	err := c.propagated(ctx, func(ctx context.Context) error {
		_, err := c.Lambda.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String(name), InvocationType: types.InvocationTypeEvent, Payload: event})
		return err
	})
	return failed("invoking function", name, err)
}

// HaltFunction lets a function have no invocation any more; those that run go on.
func (c *Client) HaltFunction(ctx context.Context, name string) error {
	again := func(err error) bool { return is(err, "ResourceConflictException") } // it is being changed
	err := c.retry(ctx, propagation, again, func(ctx context.Context) error {
		_, err := c.Lambda.PutFunctionConcurrency(ctx, &lambda.PutFunctionConcurrencyInput{FunctionName: aws.String(name), ReservedConcurrentExecutions: aws.Int32(0)})
		return err
	})
	if missing(err) {
		return nil
	}
	return failed("stopping invocations of function", name, err)
}
