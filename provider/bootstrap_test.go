// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/provider/emulator"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// TestBootstrapUserData: the same node has the same user data, and is the same launch.
func TestBootstrapUserData(t *testing.T) {
	t.Setenv("AWS_ENDPOINT_URL", "")
	l := cloud.Layer{ARN: "arn:aws:lambda:us-east-1:123456789012:layer:boxer-runtime-amd64:1", SHA256: strings.Repeat("a", 64)}
	node, err := config.New(config.Node{Network: "shop", Kind: config.KindVM, Slot: "web", Argv: []string{"nginx"},
		SecretRef: "ssm:us-east-1/boxer/shop/secret", SeedEndpoints: []string{"192.0.2.1:7717"}})
	if err != nil {
		t.Fatal(err)
	}
	made := func(n config.Node) ([]byte, config.Node) {
		t.Helper()
		data, err := bootstrapUserData(n, l, "us-east-1", []byte("#!/bin/sh\ndnf install -y nginx\n"))
		if err != nil {
			t.Fatal(err)
		}
		vm, own, err := layer.DecodeUserData(data)
		if err != nil || vm.Layer.URL != l.ARN || !strings.Contains(string(own), "dnf") {
			t.Fatalf("%+v, %q, %v", vm, own, err)
		}
		var document config.Node
		if err := json.Unmarshal([]byte(vm.Node), &document); err != nil {
			t.Fatal(err)
		}
		return data, document
	}
	first, document := made(node)
	again, _ := made(node)
	if !bytes.Equal(first, again) || len(document.LaunchToken) != 32 {
		t.Errorf("two reads differ, or no launch: %+v", document)
	}
	other := node
	other.Argv = []string{"nginx", "-t"}
	if _, changed := made(other); changed.LaunchToken == document.LaunchToken {
		t.Error("another node is the same launch")
	}
}

// TestBootstrapOnLocal: there is nothing to attach to.
func TestBootstrapOnLocal(t *testing.T) {
	w := newCloud(t).workspace()
	w.configure(`data "boxer_node_bootstrap" "web" {
  network_id = "shop"
  name       = "web"
  kind       = "vm"
  command    = ["nginx"]
}
`)
	found := w.errors("plan")
	if len(found) != 1 || found[0].Summary != "Nothing to attach to" || !strings.Contains(found[0].Detail, "boxer_vm_node") {
		t.Errorf("%v", found)
	}
}

// TestAccAWSBootstrap: a plain instance and a plain function of somebody else's become nodes.
func TestAccAWSBootstrap(t *testing.T) {
	c := newCloud(t)
	a := emulator.Start(t)
	nodes := a.RunNodes()
	w := c.workspace()
	a.Setenv(t)
	w.configure(`provider "boxer" { platform = "aws" }
resource "boxer_network" "shop" { name = "shop" }
data "boxer_node_bootstrap" "web" {
  network_id = boxer_network.shop.id
  name       = "web"
  kind       = "vm"
  command    = ["python3", "-m", "http.server", "8000", "--directory", "/"]
}
data "boxer_node_bootstrap" "job" {
  network_id = boxer_network.shop.id
  name       = "job"
  kind       = "function"
  command    = ["sh", "-c", "until curl -sf http://web:8000/ >/tmp/page; do sleep 0.1; done; echo the page is here; sleep 600"]
  wait_for   = { web = 1 }
}
`)
	w.apply()
	w.emptyPlan()
	web, job := w.values("data.boxer_node_bootstrap.web"), w.values("data.boxer_node_bootstrap.job")
	if web["event"] != nil || job["user_data_base64"] != nil || job["event"] == nil || web["instance_profile"] != "boxer-shop_vm_us-east-1" {
		t.Fatalf("%v\n%v", web, job)
	}
	through := a.Config()
	through.BaseEndpoint = aws.String(a.URL())
	machines, functions := ec2.NewFromConfig(through), awslambda.NewFromConfig(through)
	run, err := machines.RunInstances(t.Context(), &ec2.RunInstancesInput{ImageId: aws.String("ami-1"), MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
		UserData: aws.String(web["user_data_base64"].(string)), SecurityGroupIds: []string{web["security_group_id"].(string)},
		IamInstanceProfile: &ec2types.IamInstanceProfileSpecification{Name: aws.String(web["instance_profile"].(string))}})
	if err != nil {
		t.Fatal(err)
	}
	function, err := functions.CreateFunction(t.Context(), &awslambda.CreateFunctionInput{FunctionName: aws.String("job"), Handler: aws.String("boxer"),
		Runtime: "provided.al2023", Timeout: aws.Int32(60), Role: aws.String("arn:aws:iam::" + emulator.Account + ":role/" + job["role_name"].(string)),
		Layers: []string{job["layer_arn"].(string)}, Code: &lambdatypes.FunctionCode{ZipFile: []byte("a zip")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := functions.Invoke(t.Context(), &awslambda.InvokeInput{FunctionName: function.FunctionName, InvocationType: lambdatypes.InvocationTypeEvent,
		Payload: []byte(job["event"].(string))}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the function has the instance's page", func() bool { return strings.Contains(nodes.Logs()["function job (job)"], "the page is here") })

	_, err = machines.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{*run.Instances[0].InstanceId}})
	_, err2 := functions.DeleteFunction(t.Context(), &awslambda.DeleteFunctionInput{FunctionName: function.FunctionName})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	w.destroy()
	if left := a.Leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
