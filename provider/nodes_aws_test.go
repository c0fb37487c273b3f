// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"bytes"
	"fmt"
	"os/user"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/provider/emulator"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// onAWSBlock is what a configuration for AWS begins with. Nodes of the emulator are of
// this machine's architecture, which the seeds are, too.
const onAWSBlock = "provider \"boxer\" {\n  platform = \"aws\"\n}\n" + shop

// awsWorkspace is one on the platform aws, with the layer of this build.
func awsWorkspace(t *testing.T, a *emulator.AWS) *workspace {
	t.Helper()
	builtLayer = builtFile(t, "boxer-layer-"+runtime.GOARCH+".zip")
	zip, err := plainLayer()
	if err != nil {
		t.Fatal(err)
	}
	zip = bytes.Clone(zip)
	a.Setenv(t)
	return newWorkspace(t, WithLayers(func(string) ([]byte, error) { return zip, nil }), func(p *boxerProvider) { p.pause = 20 * time.Millisecond })
}

// TestAccNodesOnAWS: nodes of both kinds live a whole life on AWS: they are made, run,
// are changed in place and replaced, imported, missed when they are gone, and removed.
func TestAccNodesOnAWS(t *testing.T) {
	a := emulator.Start(t)
	a.RunNodes()
	w := awsWorkspace(t, a)
	w.write("app/say", "one")
	source := fmt.Sprintf("source_dir = %q\n", w.dir+"/app")
	loop := `["sh", "-c", "while :; do sleep 1; done"]`
	self, err := user.Current() // the account that the bootstrap script makes is not here
	if err != nil {
		t.Fatal(err)
	}
	config := func(word, memory string) string {
		return onAWSBlock + vm("store", loop, "environment = { WORD = \""+word+"\" }\nuser = \""+self.Username+"\"\n"+
			"user_data = \"#!/bin/sh\"\ntags = { Name = \"our store\" }\ninstance_profile = \"app\"\n") +
			function("logic", loop, source+"desired_count = 2\nenvironment = { WORD = \""+word+"\" }\nmemory_size = "+memory+"\n")
	}
	aws, err := cloud.Open(t.Context(), cloud.Config{})
	if err != nil {
		t.Fatal(err)
	}
	own := "app"
	if _, err := aws.IAM.CreateInstanceProfile(t.Context(), &iam.CreateInstanceProfileInput{InstanceProfileName: &own}); err != nil {
		t.Fatal(err)
	}
	a.Forget()
	a.Inject(emulator.RoleNotReady(1), emulator.ProfileNotReady("boxer-shop_vm", 1))
	a.Inject(emulator.FunctionState("Pending", "Creating", "The function is being created.", 2)...)
	w.configure(config("one", "256"))
	w.apply()
	w.emptyPlan()
	store, logic := w.values(storeVM), w.values(logicAddress)
	if store["instance_id"] == nil || store["private_ip"] == nil || fmt.Sprint(store["node_ids"]) == "[]" || store["image_id"] == nil {
		t.Errorf("%v", store)
	}
	if runs := a.Calls("ec2.RunInstances"); runs[len(runs)-1].Form().Get("IamInstanceProfile.Name") != own {
		t.Errorf("%v", runs[len(runs)-1].Form())
	}
	if logic["running_count"] != 2.0 || logic["function_arn"] == nil || logic["log_group_name"] != "/aws/lambda/boxer-shop_logic" {
		t.Errorf("%v", logic)
	}
	if t.Failed() {
		return
	}

	t.Run("in place", func(t *testing.T) {
		w.t = t
		if err := aws.DeleteNode(t.Context(), "shop", "logic"); err != nil { // who lost the record can still be changed
			t.Fatal(err)
		}
		w.configure(config("two", "512"))
		if planned := w.planned(); planned[storeVM] != "update" || planned[logicAddress] != "update" {
			t.Fatalf("planned %v", planned)
		}
		w.apply()
		w.emptyPlan()
		now, replicas := w.values(storeVM), w.values(logicAddress)
		if now["instance_id"] != store["instance_id"] || fmt.Sprint(now["overlay_addresses"]) != fmt.Sprint(store["overlay_addresses"]) || fmt.Sprint(now["node_ids"]) != fmt.Sprint(store["node_ids"]) {
			t.Errorf("the VM node is another: %v after %v", now, store)
		}
		if fmt.Sprint(replicas["overlay_addresses"]) != fmt.Sprint(logic["overlay_addresses"]) || fmt.Sprint(replicas["node_ids"]) == fmt.Sprint(logic["node_ids"]) {
			t.Errorf("the replicas were not replaced: %v after %v", replicas, logic)
		}
	})
	t.Run("import", func(t *testing.T) {
		w.t = t
		w.must("state", "rm", storeVM, logicAddress)
		w.must("import", "-input=false", storeVM, "shop,store")
		w.must("import", "-input=false", logicAddress, "shop,logic")
		for address, action := range w.planned() {
			if action != "no-op" && (address != logicAddress || action != "update") { // source_dir is nowhere but here
				t.Errorf("%s: %s", address, action)
			}
		}
		w.apply()
		w.emptyPlan()
	})
	t.Run("drift", func(t *testing.T) {
		w.t = t
		name, memory := "boxer-shop_logic", int32(1024)
		if _, err := aws.Lambda.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{FunctionName: &name, MemorySize: &memory}); err != nil {
			t.Fatal(err)
		}
		if planned := w.planned(); planned[logicAddress] != "update" || planned[storeVM] != "no-op" {
			t.Errorf("planned %v", planned)
		}
		w.apply()
		w.emptyPlan()
	})
	t.Run("a record is lost", func(t *testing.T) {
		w.t = t
		if err := aws.DeleteNode(t.Context(), "shop", "store"); err != nil {
			t.Fatal(err)
		}
		w.emptyPlan()
	})
	t.Run("vanish", func(t *testing.T) {
		w.t = t
		instance := fmt.Sprint(w.values(storeVM)["instance_id"])
		if _, err := aws.EC2.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{instance}}); err != nil {
			t.Fatal(err)
		}
		if planned := w.planned(); planned[storeVM] != "create" {
			t.Errorf("planned %v", planned)
		}
		w.apply()
		w.emptyPlan()
		if now := w.values(storeVM); now["instance_id"] == instance || fmt.Sprint(now["overlay_addresses"]) != fmt.Sprint(store["overlay_addresses"]) {
			t.Errorf("%v after %v", now, store)
		}
	})
	w.t = t
	if secrets := a.Calls("ssm.PutParameter"); !slices.ContainsFunc(secrets, func(c emulator.Call) bool {
		return strings.Contains(c.Body, "/boxer/shop/nodes/store/0") && strings.Contains(c.Body, "SecureString")
	}) {
		t.Error("the record of a node is not encrypted")
	}
	w.destroy()
	if left := a.Leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestAccNodeFailuresOnAWS: what fails half-way leaves nothing behind, or is removed by
// the next destroy, also when the network's seed is gone.
func TestAccNodeFailuresOnAWS(t *testing.T) {
	a := emulator.Start(t)
	a.RunNodes()
	w := awsWorkspace(t, a)
	aws, err := cloud.Open(t.Context(), cloud.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w.configure(onAWSBlock)
	w.apply()
	before := a.Leftovers()
	w.write("app/say", "one")
	loop := `["sh", "-c", "while :; do sleep 1; done"]`
	source := fmt.Sprintf("source_dir = %q\n", w.dir+"/app")
	lives := function("logic", loop, source+"desired_count = 1\n")
	for _, tt := range []struct {
		name, config string
		faults       []emulator.Fault
		says         []string
	}{
		{"recursion denied", lives, []emulator.Fault{emulator.Denied("lambda", "PutFunctionRecursionConfig")}, []string{"AccessDeniedException", "boxer iam-policy"}},
		{"function failed", lives, emulator.FunctionState("Failed", "InvalidImage", "no such image", -1), []string{"Failed (InvalidImage: no such image)"}},
		{"no capacity", vm("store", loop, source), []emulator.Fault{{Service: "ec2", Action: "RunInstances", Times: -1, Code: "InsufficientInstanceCapacity", Message: "no capacity"}},
			[]string{"InsufficientInstanceCapacity", "choose another instance_type or subnet_id"}},
		{"guest ends", function("logic", `["sh", "-c", "exit 3"]`, "desired_count = 1\n"), nil, []string{"the guest ended with exit status 3"}},
		{"guest ends, and AWS is slow", function("logic", `["sh", "-c", "exit 3"]`, "desired_count = 1\n"),
			[]emulator.Fault{{Service: "ssm", Action: "GetParameter", Match: cloud.RecordName("shop"), Delay: time.Second, Times: -1}}, []string{"the guest ended with exit status 3"}},
	} {
		w.configure(onAWSBlock + tt.config)
		a.Inject(tt.faults...)
		text := fmt.Sprint(w.errors("apply", "-auto-approve", "-input=false"))
		a.Mend()
		for _, want := range tt.says {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %s\ndoes not say %q", tt.name, text, want)
			}
		}
		if now := a.Leftovers(); !slices.Equal(now, before) {
			t.Errorf("%s: left %v, was %v", tt.name, now, before)
		}
	}
	// What EC2 lists may lag behind: an instance that it does not show has not ended yet.
	wait := &awsWait{p: newAWSPlatform(aws, nil), n: &cloud.Network{Name: "shop"}, gone: map[string]time.Time{}}
	if err := wait.Ended(t.Context(), launch.Want{Slot: "store"}); err != nil {
		t.Errorf("at once: %v", err)
	}
	wait.gone["store"] = wait.gone["store"].Add(-goneTime)
	if err := wait.Ended(t.Context(), launch.Want{Slot: "store"}); err == nil || !strings.Contains(err.Error(), "its instance ended") {
		t.Errorf("at last: %v", err)
	}
	// What cannot be undone stays in the state, and is removed later.
	w.configure(onAWSBlock + function("logic", `["sh", "-c", "exit 3"]`, "desired_count = 1\n"))
	a.Inject(emulator.Denied("lambda", "DeleteFunction"))
	text := fmt.Sprint(w.errors("apply", "-auto-approve", "-input=false"))
	if a.Mend(); !strings.Contains(text, "It stays in Terraform's state") || w.values(logicAddress) == nil {
		t.Errorf("%s", text)
	}
	w.configure(onAWSBlock + lives)
	w.apply()
	w.emptyPlan()
	seed, err := aws.FindInstance(t.Context(), "shop", cloud.PartSeed, "seed-0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := aws.EC2.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{seed.ID}}); err != nil {
		t.Fatal(err)
	}
	w.destroy()
	if left := a.Leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
