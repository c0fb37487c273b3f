// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/boxer-overlay/boxer/provider/emulator"
)

// ours are the objects of an account that are tagged as a network's, but for layers.
func ours(a *emulator.AWS) map[string]map[string]string {
	found := map[string]map[string]string{}
	for _, o := range a.Objects() {
		if o.Tags[TagNetwork] != "" {
			found[o.Kind+" "+o.Name] = o.Tags
		}
	}
	return found
}

func testClient(t *testing.T, a *emulator.AWS) *Client {
	t.Helper()
	a.Setenv(t)
	c, err := Open(t.Context(), Config{MaxRetries: 1})
	if err != nil {
		t.Fatal(err)
	}
	c.Pause = 10 * time.Millisecond
	return c
}

func testRole(t *testing.T, c *Client, name string) string {
	t.Helper()
	out, err := c.IAM.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: aws.String(name), AssumeRolePolicyDocument: aws.String(trust("lambda", c.Region))})
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(out.Role.Arn)
}

// TestFunctions: made while its role is new, changed, and removed, with everything that
// its invocations need.
func TestFunctions(t *testing.T) {
	a := emulator.Start(t)
	c := testClient(t, a)
	ctx := t.Context()
	s := FunctionSpec{
		Network: "shop", Node: "logic", Name: "boxer-shop_logic", Role: testRole(t, c, "logic"), Arch: "arm64", MemoryMB: 256, TimeoutS: 60, EphemeralMB: 600,
		Code: Code{Zip: []byte("one")}, LogGroup: "/aws/lambda/boxer-shop_logic", LogDays: 7, Tags: map[string]string{"team": "shop"},
	}
	a.Inject(emulator.RoleNotReady(2))
	a.Inject(emulator.FunctionState("Pending", "Creating", "The function is being created.", 1)...)
	if made, err := c.CreateFunction(ctx, s); err != nil || !made {
		t.Fatalf("%v, made: %v", err, made)
	}
	a.Mend()
	if calls := a.Calls("lambda.CreateFunction"); len(calls) != 3 {
		t.Errorf("%d calls of CreateFunction, want 3: the role was new", len(calls))
	}
	has, err := c.FindFunction(ctx, s.Name)
	if err != nil || has.Arch != "arm64" || has.MemoryMB != 256 || has.TimeoutS != 60 || has.EphemeralMB != 600 || has.Reserved != nil {
		t.Errorf("%+v %v", has, err)
	}
	want := map[string]string{"team": "shop", TagNetwork: "shop", TagNode: "logic", TagPart: PartFunction}
	if !maps.Equal(has.Tags, want) {
		t.Errorf("tags %v, want %v", has.Tags, want)
	}
	delivery := a.Calls("lambda.PutFunctionEventInvokeConfig")
	if len(delivery) != 1 || !strings.Contains(delivery[0].Body, `"MaximumRetryAttempts":0`) || !strings.Contains(delivery[0].Body, `"MaximumEventAgeInSeconds":60`) {
		t.Errorf("%+v", delivery)
	}
	if loops := a.Calls("lambda.PutFunctionRecursionConfig"); len(loops) != 1 || !strings.Contains(loops[0].Body, `"Allow"`) {
		t.Errorf("%+v", loops)
	}
	order := func(before, after string) {
		t.Helper()
		at := func(action string) int {
			return slices.IndexFunc(a.Calls(), func(c emulator.Call) bool { return c.Service+"."+c.Action == action })
		}
		if at(before) < 0 || at(after) < at(before) {
			t.Errorf("%s comes after %s", before, after)
		}
	}
	order("logs.CreateLogGroup", "lambda.CreateFunction") // else Lambda makes one that is kept for ever

	five := int32(5)
	s.MemoryMB, s.Arch, s.Code.Zip, s.Reserved, s.Tags = 512, "amd64", []byte("two"), &five, map[string]string{"team": "store"}
	if err := c.UpdateFunction(ctx, s, true); err != nil {
		t.Fatal(err)
	}
	next, err := c.FindFunction(ctx, s.Name)
	if err != nil || next.MemoryMB != 512 || next.CodeSHA256 == has.CodeSHA256 || next.Reserved == nil || *next.Reserved != 5 || next.Tags["team"] != "store" {
		t.Errorf("%+v %v", next, err)
	}
	if _, err := c.CreateFunction(ctx, s); !errors.Is(err, ErrForeign) {
		t.Errorf("made twice: %v", err)
	}
	if err := errors.Join(c.HaltFunction(ctx, s.Name), c.DeleteFunction(ctx, s.Name, s.LogGroup, nil), c.DeleteFunction(ctx, s.Name, s.LogGroup, nil), c.HaltFunction(ctx, s.Name)); err != nil {
		t.Error(err)
	}
	if _, err := c.FindFunction(ctx, s.Name); !errors.Is(err, ErrNotFound) {
		t.Errorf("after it was removed: %v", err)
	}
	if left := ours(a); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestFunctionsThatFail: an error ends with AWS's reason, and what was made is known.
func TestFunctionsThatFail(t *testing.T) {
	a := emulator.Start(t)
	c := testClient(t, a)
	s := FunctionSpec{Network: "shop", Node: "logic", Name: "boxer-shop_logic", Role: testRole(t, c, "logic"), MemoryMB: 128, TimeoutS: 60, EphemeralMB: 512,
		Code: Code{Zip: []byte("one")}, LogGroup: "/aws/lambda/boxer-shop_logic"}
	create := func() (bool, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return c.CreateFunction(ctx, s)
	}
	says := func(what string, made bool, err error, want ...string) {
		t.Helper()
		for _, words := range want {
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("%s: %v: does not say %q", what, err, words)
			}
		}
		if !made {
			t.Errorf("%s: said to have made nothing", what)
		}
		a.Mend()
		if err := c.DeleteFunction(t.Context(), s.Name, s.LogGroup, nil); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if left := ours(a); len(left) > 0 {
			t.Errorf("%s: left: %v", what, left)
		}
	}
	a.Inject(emulator.FunctionState("Failed", "EniLimitExceeded", "The network interface limit is reached.", -1)...)
	made, err := create()
	says("failed", made, err, "boxer-shop_logic", "Failed (EniLimitExceeded: The network interface limit is reached.)")

	a.Inject(emulator.FunctionState("Pending", "Creating", "The function is being created.", -1)...)
	made, err = create()
	says("pending", made, err, "still Pending (Creating: The function is being created.) after", "timeouts")

	a.Inject(emulator.Denied("lambda", "PutFunctionRecursionConfig"))
	made, err = create()
	says("denied", made, err, "AccessDeniedException", "boxer iam-policy")

	a.Inject(emulator.RoleNotReady(-1))
	made, err = create()
	says("role", made, err, "cannot be assumed by Lambda", "trust policy")
}

// TestInstances: found by tags, started once, ended and waited for.
func TestInstances(t *testing.T) {
	a := emulator.Start(t)
	c := testClient(t, a)
	ctx := t.Context()
	image, err := c.NewestImage(ctx, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	s := InstanceSpec{Network: "shop", Slot: "store", Part: PartVM, Name: "shop/store", ClientToken: "one", Image: image, Type: "t3.micro",
		UserData: []byte("#!/bin/sh"), Tags: map[string]string{"team": "shop"}, Volume: Volume{SizeGB: 20}}
	if _, err := c.FindInstance(ctx, "shop", PartVM, "store"); !errors.Is(err, ErrNotFound) {
		t.Errorf("before there is one: %v", err)
	}
	a.Inject(emulator.ProfileNotReady("boxer-shop_vm", 2), emulator.Throttle("ec2", "RunInstances", 1))
	made, err := c.RunInstance(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	call := a.Calls("ec2.RunInstances")
	form := call[len(call)-1].Form()
	for name, want := range map[string]string{
		"MetadataOptions.HttpTokens": "required", "MetadataOptions.HttpPutResponseHopLimit": "2", "BlockDeviceMapping.1.Ebs.Encrypted": "true",
		"BlockDeviceMapping.1.Ebs.VolumeSize": "20", "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true", "ClientToken": "one",
	} {
		if got := form.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	a.Inject(emulator.InstanceState("pending", "", "", 1))
	if _, err := c.AwaitInstance(ctx, made.ID); err != nil {
		t.Error(err)
	}
	found, err := c.FindInstance(ctx, "shop", PartVM, "store")
	if err != nil || found.ID != made.ID || found.Tags["team"] != "shop" || found.Tags["Name"] != "shop/store" || found.PrivateIP == "" {
		t.Errorf("%+v %v", found, err)
	}
	tags := maps.Clone(found.Tags)
	delete(tags, "team")
	tags["colour"] = "blue"
	if err := c.SetInstance(ctx, found, found.Groups, tags); err != nil {
		t.Error(err)
	}
	if found, err = c.FindInstance(ctx, "shop", PartVM, "store"); err != nil || !maps.Equal(found.Tags, tags) {
		t.Errorf("%v, want %v, %v", found.Tags, tags, err)
	}
	a.Inject(emulator.InstanceState("terminated", "Client.InvalidSnapshot.NotFound", "The volume is gone", 1))
	if _, err := c.AwaitInstance(ctx, made.ID); err == nil || !strings.Contains(err.Error(), "terminated (The volume is gone)") || !strings.Contains(err.Error(), "get-console-output") {
		t.Errorf("an instance that ended: %v", err)
	}
	if err := errors.Join(c.DeleteInstances(ctx, "shop", PartVM, "store"), c.DeleteInstances(ctx, "shop", PartVM, "store")); err != nil {
		t.Error(err)
	}
	if _, err := c.FindInstance(ctx, "shop", PartVM, "store"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after it was ended: %v", err)
	}
	a.Inject(emulator.Fault{Service: "ec2", Action: "RunInstances", Times: -1, Code: "InsufficientInstanceCapacity", Message: "We currently do not have sufficient capacity"})
	if _, err := c.RunInstance(ctx, s); err == nil || !strings.Contains(err.Error(), "choose another instance_type or subnet_id") {
		t.Errorf("without capacity: %v", err)
	}
}

// TestNodeRecords: a long one in pieces, replaced by a short one, and removed.
func TestNodeRecords(t *testing.T) {
	a := emulator.Start(t)
	c := testClient(t, a)
	ctx := t.Context()
	var long strings.Builder
	for state := uint32(1); long.Len() < 60_000; { // hard to compress
		state = state*1664525 + 1013904223
		long.WriteByte(byte(state >> 24))
	}
	for _, text := range []string{"short", long.String(), "shorter"} {
		if err := c.PutNode(ctx, "shop", "store", []byte(text), map[string]string{"length": "any"}); err != nil {
			t.Fatal(err)
		}
		got, tags, err := c.Node(ctx, "shop", "store")
		if err != nil || string(got) != text || !maps.Equal(tags, map[string]string{"length": "any"}) {
			t.Errorf("%d bytes read as %d, %v, %v", len(text), len(got), tags, err)
		}
	}
	if pieces := ours(a); len(pieces) != 1 {
		t.Errorf("%d pieces are left of a long record", len(pieces))
	}
	if _, _, err := c.Node(ctx, "shop", "other"); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	if err := errors.Join(c.DeleteNode(ctx, "shop", "store"), c.DeleteNode(ctx, "shop", "store")); err != nil {
		t.Error(err)
	}
	if left := ours(a); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestUpgradeNodes: instances are told by a tag, functions get the layer, and those of
// other networks stay as they are.
func TestUpgradeNodes(t *testing.T) {
	a := emulator.Start(t)
	c := testClient(t, a)
	ctx := t.Context()
	publish := func(content string) string {
		out, err := c.Lambda.PublishLayerVersion(ctx, &lambda.PublishLayerVersionInput{LayerName: aws.String("boxer-runtime-amd64"), Content: &types.LayerVersionContentInput{ZipFile: []byte(content)}})
		if err != nil {
			t.Fatal(err)
		}
		return aws.ToString(out.LayerVersionArn)
	}
	first, second := publish("one"), publish("two")
	role := testRole(t, c, "logic")
	image, err := c.NewestImage(ctx, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"shop", "shop-two"} { // one's name begins as the other's
		s := FunctionSpec{Network: network, Node: "logic", Name: "boxer-" + network + "_logic", Role: role, Arch: "amd64", MemoryMB: 128, TimeoutS: 60, EphemeralMB: 512,
			Code: Code{Zip: []byte("one")}, Layers: []string{first}, LogGroup: "/aws/lambda/boxer-" + network + "_logic"}
		if _, err := c.CreateFunction(ctx, s); err != nil {
			t.Fatal(err)
		}
		if _, err := c.RunInstance(ctx, InstanceSpec{Network: network, Slot: "store", Part: PartVM, Name: "store", Image: image, Type: "t3.micro"}); err != nil {
			t.Fatal(err)
		}
	}
	n := &Network{Name: "shop", Prefix: DefaultPrefix, Layers: map[string]Layer{"amd64": {ARN: second, SHA256: strings.Repeat("0", 64)}}}
	for range 2 {
		if err := c.UpgradeNodes(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	if calls := a.Calls("lambda.UpdateFunctionConfiguration"); len(calls) != 1 {
		t.Errorf("%d changes of functions, want 1", len(calls))
	}
	for network, want := range map[string]string{"shop": second, "shop-two": first} {
		f, err := c.FindFunction(ctx, "boxer-"+network+"_logic")
		if err != nil || !slices.Equal(f.Layers, []string{want}) {
			t.Errorf("%s: layers %v, want %s, %v", network, f.Layers, want, err)
		}
		i, err := c.FindInstance(ctx, network, PartVM, "store")
		tag := ""
		if network == "shop" {
			tag = second + " " + strings.Repeat("0", 64)
		}
		if err != nil || i.Tags["boxer:layer"] != tag {
			t.Errorf("%s: tags %v, want %q, %v", network, i.Tags, tag, err)
		}
	}
}
