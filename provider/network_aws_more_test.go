// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"encoding/base64"
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
	a.Inject(emulator.ProfileNotReady("boxer-bank-seed", 2), emulator.Throttle("ec2", "DescribeSubnets", 1))
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
