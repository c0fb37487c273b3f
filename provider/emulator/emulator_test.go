// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

// through is the configuration of clients that go through the proxy, as a provider does.
func through(a *AWS) aws.Config {
	c := a.Config()
	c.BaseEndpoint = aws.String(a.URL())
	return c
}

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	if err != nil {
		return "not of the API: " + err.Error()
	}
	return ""
}

func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`

// TestAccount makes one of everything: each is found, with its tags, and gone when deleted.
func TestAccount(t *testing.T) {
	t.Parallel()
	a := Start(t)
	ctx, c := t.Context(), through(a)
	if left := a.Objects(); len(left) > 0 {
		t.Fatalf("a new account has %v", left)
	}
	tags := map[string]string{"boxer:network": "shop"}
	role := makeRole(t, a, "boxer-shop_function", tags)

	functions := lambda.NewFromConfig(c)
	zip := []byte("not a zip, and moto does not look")
	layer := must[*lambda.PublishLayerVersionOutput](t)(functions.PublishLayerVersion(ctx, &lambda.PublishLayerVersionInput{
		LayerName: aws.String("boxer-runtime-amd64"), Content: &lambdatypes.LayerVersionContentInput{ZipFile: zip}}))
	got := must[*lambda.GetLayerVersionOutput](t)(functions.GetLayerVersion(ctx, &lambda.GetLayerVersionInput{
		LayerName: layer.LayerArn, VersionNumber: aws.Int64(layer.Version)}))
	if data := download(t, aws.ToString(got.Content.Location)); data != string(zip) || aws.ToString(got.Content.CodeSha256) != codeHash(zip) {
		t.Errorf("the layer has %q, %s", data, aws.ToString(got.Content.CodeSha256))
	}
	function := must[*lambda.CreateFunctionOutput](t)(functions.CreateFunction(ctx, createFunction(role, tags, *layer.LayerVersionArn)))
	for range 2 { // what moto has not
		loop := must[*lambda.PutFunctionRecursionConfigOutput](t)(functions.PutFunctionRecursionConfig(ctx, &lambda.PutFunctionRecursionConfigInput{
			FunctionName: function.FunctionName, RecursiveLoop: lambdatypes.RecursiveLoopAllow}))
		if loop.RecursiveLoop != lambdatypes.RecursiveLoopAllow {
			t.Errorf("recursion: %v", loop.RecursiveLoop)
		}
	}
	must[*lambda.InvokeOutput](t)(functions.Invoke(ctx, &lambda.InvokeInput{
		FunctionName: function.FunctionArn, InvocationType: lambdatypes.InvocationTypeEvent, Payload: []byte(`{"version":1}`)}))
	if _, err := functions.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("none"), InvocationType: lambdatypes.InvocationTypeEvent}); code(err) != "ResourceNotFoundException" {
		t.Errorf("invoked what is not there: %v", err)
	}
	must[*lambda.PutFunctionEventInvokeConfigOutput](t)(functions.PutFunctionEventInvokeConfig(ctx, &lambda.PutFunctionEventInvokeConfigInput{
		FunctionName: function.FunctionName, MaximumRetryAttempts: aws.Int32(0), MaximumEventAgeInSeconds: aws.Int32(60)}))
	must[*lambda.PutFunctionConcurrencyOutput](t)(functions.PutFunctionConcurrency(ctx, &lambda.PutFunctionConcurrencyInput{
		FunctionName: function.FunctionName, ReservedConcurrentExecutions: aws.Int32(0)}))

	parameters := ssm.NewFromConfig(c)
	must[*ssm.PutParameterOutput](t)(parameters.PutParameter(ctx, &ssm.PutParameterInput{Name: aws.String("/boxer/shop/secret"), Value: aws.String("s"),
		Type: ssmtypes.ParameterTypeSecureString, Tags: []ssmtypes.Tag{{Key: aws.String("boxer:network"), Value: aws.String("shop")}}}))
	logs := cloudwatchlogs.NewFromConfig(c)
	must[*cloudwatchlogs.CreateLogGroupOutput](t)(logs.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String("/aws/lambda/boxer-shop_f"), Tags: tags}))
	machines := ec2.NewFromConfig(c)
	spec := func(kind ec2types.ResourceType) []ec2types.TagSpecification {
		return []ec2types.TagSpecification{{ResourceType: kind, Tags: []ec2types.Tag{{Key: aws.String("boxer:network"), Value: aws.String("shop")}}}}
	}
	for range 4 { // usable ones
		address := must[*ec2.AllocateAddressOutput](t)(machines.AllocateAddress(ctx, &ec2.AllocateAddressInput{TagSpecifications: spec("elastic-ip")}))
		if !strings.HasPrefix(aws.ToString(address.PublicIp), "127.") {
			t.Errorf("an Elastic IP nobody can listen at: %v", aws.ToString(address.PublicIp))
		}
	}
	group := must[*ec2.CreateSecurityGroupOutput](t)(machines.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{
		GroupName: aws.String("boxer-shop"), Description: aws.String("x"), TagSpecifications: spec("security-group")}))
	image := must[*ssm.GetParameterOutput](t)(parameters.GetParameter(ctx, &ssm.GetParameterInput{
		Name: aws.String("/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64")}))
	run := must[*ec2.RunInstancesOutput](t)(machines.RunInstances(ctx, &ec2.RunInstancesInput{
		ImageId: image.Parameter.Value, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), InstanceType: "t4g.nano", SecurityGroupIds: []string{*group.GroupId}, TagSpecifications: spec("instance")}))

	kinds := map[string]int{}
	for _, o := range a.Objects() {
		kinds[o.Kind]++
		if o.Kind != "layer" && o.Kind != "volume" && o.Tags["boxer:network"] != "shop" {
			t.Errorf("%s has the tags %v", o, o.Tags)
		}
	}
	for kind, count := range map[string]int{"role": 1, "function": 1, "layer": 1, "parameter": 1, "loggroup": 1, "address": 4, "group": 1, "instance": 1} {
		if kinds[kind] != count {
			t.Errorf("%d of %s, want %d: %v", kinds[kind], kind, count, a.Objects())
		}
	}

	must[*ec2.TerminateInstancesOutput](t)(machines.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*run.Instances[0].InstanceId}}))
	must[*ec2.DeleteSecurityGroupOutput](t)(machines.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: group.GroupId}))
	for _, one := range must[*ec2.DescribeAddressesOutput](t)(machines.DescribeAddresses(ctx, nil)).Addresses {
		must[*ec2.ReleaseAddressOutput](t)(machines.ReleaseAddress(ctx, &ec2.ReleaseAddressInput{AllocationId: one.AllocationId}))
	}
	must[*lambda.DeleteFunctionOutput](t)(functions.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: function.FunctionName}))
	must[*ssm.DeleteParameterOutput](t)(parameters.DeleteParameter(ctx, &ssm.DeleteParameterInput{Name: aws.String("/boxer/shop/secret")}))
	if left := a.Leftovers(); !slices.Equal(left, []string{"role boxer-shop_function", "loggroup /aws/lambda/boxer-shop_f"}) {
		t.Errorf("left: %v", left)
	}

	// Everything was recognised.
	for _, c := range a.Calls() {
		if c.Service == "" || c.Action == "" || c.Status == 0 {
			t.Errorf("a call is not known: %+v", c)
		}
	}
	if calls := a.Calls("ec2.RunInstances"); len(calls) != 1 || calls[0].Form().Get("InstanceType") != "t4g.nano" {
		t.Errorf("RunInstances: %+v", calls)
	}
}

func makeRole(t *testing.T, a *AWS, name string, tags map[string]string) (arn string) {
	t.Helper()
	input := &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.String(trust)}
	for key, value := range tags {
		input.Tags = append(input.Tags, iamtypes.Tag{Key: &key, Value: &value})
	}
	out := must[*iam.CreateRoleOutput](t)(iam.NewFromConfig(through(a)).CreateRole(t.Context(), input))
	return *out.Role.Arn
}

func createFunction(role string, tags map[string]string, layers ...string) *lambda.CreateFunctionInput {
	return &lambda.CreateFunctionInput{FunctionName: aws.String("boxer-shop_f"), Role: &role, Timeout: aws.Int32(60), Runtime: lambdatypes.RuntimeProvidedal2023, Handler: aws.String("boxer"),
		Layers: layers, Tags: tags, Code: &lambdatypes.FunctionCode{ZipFile: []byte("a zip")}}
}

func download(t *testing.T, from string) string {
	t.Helper()
	resp, err := http.Get(from)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return string(must[[]byte](t)(io.ReadAll(resp.Body)))
}

// TestFaults: each looks to a client as AWS's own would, as often as it was asked for.
func TestFaults(t *testing.T) {
	t.Parallel()
	a := Start(t)
	ctx, c := t.Context(), through(a)
	functions, machines, roles, parameters := lambda.NewFromConfig(c), ec2.NewFromConfig(c), iam.NewFromConfig(c), ssm.NewFromConfig(c)
	logs, who := cloudwatchlogs.NewFromConfig(c), sts.NewFromConfig(c)
	role := makeRole(t, a, "r", nil)

	a.Inject(RoleNotReady(1))
	var invalid *lambdatypes.InvalidParameterValueException
	if _, err := functions.CreateFunction(ctx, createFunction(role, nil)); !errors.As(err, &invalid) || aws.ToString(invalid.Message) != "The role defined for the function cannot be assumed by Lambda." {
		t.Errorf("a role that is not ready: %v", err)
	}
	must[*lambda.CreateFunctionOutput](t)(functions.CreateFunction(ctx, createFunction(role, nil)))
	if calls := a.Calls("lambda.CreateFunction"); len(calls) != 2 || calls[0].Fault != "InvalidParameterValueException" || calls[1].Fault != "" {
		t.Errorf("%+v", calls)
	}

	a.Inject(ProfileNotReady("boxer-shop_vm", 1))
	if _, err := machines.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: aws.String("ami-1"), MinCount: aws.Int32(1), MaxCount: aws.Int32(1)}); code(err) != "InvalidParameterValue" || !strings.Contains(err.Error(), "Invalid IAM Instance Profile name") {
		t.Errorf("a profile that is not ready: %v", err)
	}

	// Every service's own words for too many, broken and denied.
	asks := map[string]func() error{
		"ec2":    func() error { _, err := machines.DescribeAddresses(ctx, nil); return err },
		"iam":    func() error { _, err := roles.ListRoles(ctx, nil); return err },
		"lambda": func() error { _, err := functions.ListFunctions(ctx, nil); return err },
		"ssm": func() error {
			_, err := parameters.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String("/x")})
			return err
		},
		"logs": func() error { _, err := logs.DescribeLogGroups(ctx, nil); return err },
		"sts":  func() error { _, err := who.GetCallerIdentity(ctx, nil); return err },
	}
	for service, ask := range asks {
		for _, f := range []Fault{Throttle(service, "", 1), Broken(service, "", 1), Denied(service, "")} {
			a.Inject(f)
			if err := ask(); code(err) != f.Code {
				t.Errorf("%s: %v, want %s", service, err, f.Code)
			}
			a.Mend()
		}
		if err := ask(); strings.Contains(code(err), "not of the API") {
			t.Errorf("%s, mended: %v", service, err)
		}
	}

	a.Inject(FunctionState("Pending", "Creating", "The function is being created.", 1)...)
	for _, want := range []lambdatypes.State{lambdatypes.StatePending, lambdatypes.StateActive} {
		out := must[*lambda.GetFunctionOutput](t)(functions.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: aws.String("boxer-shop_f")}))
		if out.Configuration.State != want {
			t.Errorf("state %v, want %v", out.Configuration.State, want)
		}
	}
	must[*ec2.RunInstancesOutput](t)(machines.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: aws.String("ami-1"), MinCount: aws.Int32(1), MaxCount: aws.Int32(1)}))
	a.Inject(InstanceState("terminated", "Server.InternalError", "Server.InternalError: on launch", 1))
	for _, want := range []ec2types.InstanceStateName{ec2types.InstanceStateNameTerminated, ec2types.InstanceStateNameRunning} {
		i := must[*ec2.DescribeInstancesOutput](t)(machines.DescribeInstances(ctx, nil)).Reservations[0].Instances[0]
		if i.State.Name != want || (want == "terminated") != (aws.ToString(i.StateReason.Code) == "Server.InternalError") {
			t.Errorf("state %+v (%+v), want %v", i.State, i.StateReason, want)
		}
	}

	// A lost answer: the call took effect, and nobody was told.
	a.Inject(Lost("ec2", "AllocateAddress"), Fault{Service: "ec2", Action: "AllocateAddress", Reset: true})
	for range 2 {
		if _, err := machines.AllocateAddress(ctx, nil); err == nil || !strings.HasPrefix(code(err), "not of the API") {
			t.Errorf("cut: %v", err)
		}
	}
	if all := must[*ec2.DescribeAddressesOutput](t)(machines.DescribeAddresses(ctx, nil)).Addresses; len(all) != 1 {
		t.Errorf("%d addresses after one lost answer and one call that did nothing", len(all))
	}
	a.Inject(Fault{Service: "ec2", Delay: time.Minute})
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := machines.DescribeAddresses(short, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow: %v", err)
	}
	// The second call about r only.
	a.Inject(Fault{Service: "iam", Action: "GetRole", Match: "RoleName=r", Skip: 1, Code: "NoSuchEntity"})
	for i, want := range []string{"", "NoSuchEntity", ""} {
		if _, err := roles.GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String("r")}); code(err) != want {
			t.Errorf("call %d: %v, want %q", i, err, want)
		}
	}
}

func TestFunctionName(t *testing.T) {
	for _, text := range []string{"f", "f:1", "arn:aws:lambda:us-east-1:123456789012:function:f", "arn%3Aaws%3Alambda%3Aus-east-1%3A1%3Afunction%3Af", "123456789012:function:f"} {
		if got := FunctionName(text); got != "f" {
			t.Errorf("%s: %q", text, got)
		}
	}
	if !json.Valid([]byte(trust)) {
		t.Error("the trust policy")
	}
}
