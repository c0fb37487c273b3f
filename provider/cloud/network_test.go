// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/boxer-overlay/boxer/provider/emulator"
)

func emulated(t *testing.T) (*Client, *emulator.AWS) {
	t.Helper()
	a := emulator.Start(t)
	a.Setenv(t)
	c, err := Open(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	c.Pause = 10 * time.Millisecond
	return c, a
}

func shopDesign() *Design {
	return &Design{
		Network:  &Network{Name: "shop", CIDR: "100.80.0.0/16", Port: 7717, RuntimeVersion: "1", Prefix: DefaultPrefix, Seeds: 1, SeedType: DefaultSeedType, SeedArch: "arm64"},
		Zip:      func(arch string) ([]byte, error) { return []byte("layer " + arch), nil },
		UserData: func(*Network, int) ([]byte, error) { return []byte("#!/bin/sh\n"), nil },
	}
}

// Who publishes the same layer at the same time ends with the same version.
func TestLayersRace(t *testing.T) {
	c, a := emulated(t)
	var wait sync.WaitGroup
	found := make([]Layer, 4)
	for i := range found {
		wait.Go(func() {
			var err error
			if found[i], err = c.ensureLayer(t.Context(), shopDesign(), "arm64"); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for _, l := range found {
		if l != found[0] || l.ARN == "" {
			t.Errorf("%+v", found)
		}
	}
	if published := len(a.Calls("lambda.PublishLayerVersion")); published > 1 {
		t.Logf("%d published", published)
	}
	if left, err := c.Layers(t.Context(), DefaultPrefix); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What has the name of ours and not the tag is an error, and stays.
func TestForeign(t *testing.T) {
	c, a := emulated(t)
	if _, err := c.IAM.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: aws.String("boxer-shop_vm_us-east-1"), AssumeRolePolicyDocument: aws.String(trust("ec2", c.Region))}); err != nil {
		t.Fatal(err)
	}
	a.Forget()
	made, err := c.Create(t.Context(), shopDesign())
	if !made || !errors.Is(err, ErrForeign) {
		t.Errorf("made %t, %v", made, err)
	}
	if err := c.Delete(t.Context(), "shop"); err != nil {
		t.Error(err)
	}
	if left := a.Leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := c.IAM.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("boxer-shop_vm_us-east-1")}); err != nil {
		t.Errorf("the role of somebody else: %v", err)
	}
	put := &ssm.PutParameterInput{Name: aws.String(RecordName("bank")), Type: ssmtypes.ParameterTypeString, Value: aws.String("{}")}
	if _, err := c.SSM.PutParameter(t.Context(), put); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Network(t.Context(), "bank"); !errors.Is(err, ErrForeign) {
		t.Errorf("a record without our tag: %v", err)
	}
}

// Deleting what is not there, or not any more, succeeds.
func TestDeleteTwice(t *testing.T) {
	c, a := emulated(t)
	if err := c.Delete(t.Context(), "shop"); err != nil {
		t.Errorf("never made: %v", err)
	}
	if _, err := c.Create(t.Context(), shopDesign()); err != nil {
		t.Fatal(err)
	}
	if err := c.deleteParameter(t.Context(), RecordName("shop")); err != nil { // somebody did
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Delete(t.Context(), "shop"); err != nil {
			t.Error(err)
		}
	}
	if left := a.Leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
