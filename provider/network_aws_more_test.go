// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/provider/emulator"
)

func secretTag() *ssm.AddTagsToResourceInput {
	return &ssm.AddTagsToResourceInput{ResourceType: ssmtypes.ResourceTypeForTaggingParameter, ResourceId: aws.String("/boxer/shop/secret"),
		Tags: []ssmtypes.Tag{{Key: aws.String("team"), Value: aws.String("other")}}}
}

// decodedUserData is the document in what an instance was started with.
func decodedUserData(t *testing.T, text string) string {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	vm, own, err := layer.DecodeUserData(data)
	if err != nil {
		t.Fatal(err)
	}
	return vm.Node + string(own)
}

// TestAccNetworkOnAWSFails: wherever making a network fails, what was made is in the
// state, and destroy removes it; applying again makes it whole.
func TestAccNetworkOnAWSFails(t *testing.T) {
	a := emulator.Start(t)
	w := cloudWorkspace(t, a)
	for _, call := range [][2]string{
		{"ssm", "PutParameter"}, {"lambda", "PublishLayerVersion"}, {"iam", "PutRolePolicy"}, {"iam", "CreateInstanceProfile"},
		{"ec2", "AuthorizeSecurityGroupIngress"}, {"ec2", "AllocateAddress"}, {"ec2", "RunInstances"}, {"ec2", "AssociateAddress"},
	} {
		a.Inject(emulator.Denied(call[0], call[1]))
		w.configure(awsBlock + awsNet("shop", ""))
		w.errors("apply", "-auto-approve", "-input=false")
		a.Mend()
		if call[1] == "RunInstances" {
			w.apply()
			w.emptyPlan()
		}
		w.destroy()
		nothingButLayers(t, a)
	}
}

// TestAccTwoNetworksOnAWS: networks side by side share the layers, and nothing else;
// the end of one leaves the other alone.
func TestAccTwoNetworksOnAWS(t *testing.T) {
	a := emulator.Start(t)
	w := cloudWorkspace(t, a)
	shop, bank := awsNet("shop", ""), awsNet("bank", "seed = { count = 3 }")
	w.configure(awsBlock + shop + bank)
	a.Inject(emulator.ProfileNotReady("boxer-bank_seed", 2), emulator.Throttle("ec2", "DescribeSubnets", 1))
	w.apply()
	w.emptyPlan()
	layers := 0
	for _, o := range a.Objects() {
		if o.Kind == "layer" {
			layers++
		}
	}
	if layers != 2 {
		t.Errorf("%d layer versions of two architectures", layers)
	}
	if got := len(w.values("boxer_network.bank")["seed_endpoints"].([]any)); got != 3 {
		t.Errorf("%d seed endpoints, want 3", got)
	}
	w.configure(awsBlock + shop)
	w.apply()
	for _, o := range a.Objects() {
		if o.Kind != "layer" && o.Tags["boxer:network"] != "shop" {
			t.Errorf("left of the other network: %s", o)
		}
	}
	w.emptyPlan()
	w.destroy()
	nothingButLayers(t, a)
}

// What AWS would refuse, or the local platform has no meaning for, is refused before
// anything is made.
func TestNetworkOnAWSRefused(t *testing.T) {
	network := func(name, more string) string {
		return "resource \"boxer_network\" \"shop\" {\n  name = \"" + name + "\"\n  " + more + "\n}\n"
	}
	newWorkspace(t, withPlatform(newFakePlatform())).refuses("aws/network local", map[string]string{
		"vpc":  network("shop", `vpc_id = "vpc-0123456789abcdef0"`),
		"seed": network("shop", `seed = { instance_type = "t4g.nano" }`),
	})
	f := newFakePlatform()
	f.aws = true
	w := newWorkspace(t, withPlatform(f))
	w.refuses("aws/network", map[string]string{
		"vpc id":    network("shop", `vpc_id = "default"`),
		"subnets":   network("shop", `subnet_ids = []`),
		"role path": network("shop", `role_path = "apps"`),
		"boundary":  network("shop", `permissions_boundary = "none"`),
		"prefix":    network("shop", `name_prefix = "sg-"`),
		"retention": network("shop", `log_retention_days = 2`),
		"ingress":   network("shop", `seed = { ingress_cidrs = ["everywhere"] }`),
		"long name": network("a-network-with-a-name-of-forty-characters-and-some-more-yet", ""),
		"port":      network("shop", `port = 9001`),
		"tag":       network("shop", `tags = { "a/b" = "c" }`),
		"own tag":   network("shop", `tags = { "boxer:network" = "c" }`),
	})
}

// TestAccNetworkOnAWSUpgrade: another runtime version is published as a layer of its
// own and told to the seed, which stays the same instance; a provider upgrade alone
// changes nothing.
func TestAccNetworkOnAWSUpgrade(t *testing.T) {
	a := emulator.Start(t)
	w := cloudWorkspace(t, a)
	w.configure(awsBlock + awsNet("shop", ""))
	w.apply()
	before, seed := w.values(networkOnAWS), seedInstance(t, a.Config())
	next := cloudWorkspace(t, a, func(p *boxerProvider) {
		p.version = "next"
		p.layers = func(arch string) ([]byte, error) { return []byte("the next layer for " + arch), nil }
	})
	state, err := os.ReadFile(w.dir + "/terraform.tfstate")
	if err != nil {
		t.Fatal(err)
	}
	next.write("terraform.tfstate", string(state))
	next.configure(awsBlock + awsNet("shop", ""))
	next.emptyPlan()
	next.configure(awsBlock + awsNet("shop", `runtime_version = "next"`))
	if got := next.planned()[networkOnAWS]; got != "update" {
		t.Fatalf("planned %q", got)
	}
	// One that fails half-way is not taken for done.
	for _, call := range []string{"PublishLayerVersion", "ListFunctions"} {
		a.Inject(emulator.Denied("lambda", call))
		next.errors("apply", "-auto-approve", "-input=false")
		a.Mend()
		if got := next.planned()[networkOnAWS]; got != "update" {
			t.Fatalf("planned %q after an upgrade that ended at %s", got, call)
		}
	}
	next.apply()
	next.emptyPlan()
	after, now := next.values(networkOnAWS), seedInstance(t, a.Config())
	if fmt.Sprint(after["layer_arns"]) == fmt.Sprint(before["layer_arns"]) || after["runtime_version"] != "next" {
		t.Errorf("%v after %v", after, before)
	}
	arm := fmt.Sprint(after["layer_arns"].([]any)[1])
	if *now.InstanceId != *seed.InstanceId || !strings.HasPrefix(ec2Tag(now.Tags, layer.UpgradeTag), arm+" ") {
		t.Errorf("the seed: %s with %v, want %s with %s", *now.InstanceId, now.Tags, *seed.InstanceId, arm)
	}
	next.destroy()
	nothingButLayers(t, a)
}
