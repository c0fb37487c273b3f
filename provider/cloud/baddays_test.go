// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/boxer-overlay/boxer/provider/emulator"
)

// TestBadDays: what AWS, or the way to it, does to some applies, all in one account.
func TestBadDays(t *testing.T) {
	c, a := emulated(t)
	c.Pause /= 10
	for name, day := range map[string]func(*testing.T, *Client, *emulator.AWS){
		"answers are lost": lostAnswers, "again at once": againAtOnce, "functions keep their network": functionsKeepTheirNetwork,
		"a log group alone": logGroupAlone, "waits past throttling": waitsPastThrottling, "a resize that fails": resizeThatFails, "two regions": twoRegions,
	} {
		t.Run(name, func(t *testing.T) {
			day(t, c, a)
			a.Mend()
			if left := a.Leftovers(); len(left) > 0 {
				t.Fatalf("left: %v", left)
			}
		})
	}
}

// lostAnswers: what was made although nobody was told is the network's own: nothing
// is made twice for long, and nothing is left.
func lostAnswers(t *testing.T, c *Client, a *emulator.AWS) {
	ctx := t.Context()
	a.Inject(emulator.Lost("ssm", "PutParameter"), emulator.Lost("ec2", "AllocateAddress"))
	d := shopDesign()
	if made, err := c.Create(ctx, d); err != nil || !made {
		t.Fatalf("made %t, %v", made, err)
	}
	if _, err := c.Create(ctx, shopDesign()); !errors.Is(err, ErrExists) {
		t.Errorf("made by somebody else: %v", err)
	}
	used := d.Endpoints[0]
	found, err := c.Drift(ctx, d.Network)
	if err != nil || len(found) != 1 || !strings.HasPrefix(found[0], "seed-0 has another Elastic IP") {
		t.Errorf("two addresses: %q, %v", found, err)
	}
	if err := c.Converge(ctx, d); err != nil {
		t.Fatal(err)
	}
	if found, err := c.Drift(ctx, d.Network); err != nil || len(found) > 0 || d.Endpoints[0] != used {
		t.Errorf("put right: %q, at %v after %s, %v", found, d.Endpoints, used, err)
	}
	if _, err := c.EC2.AllocateAddress(ctx, &ec2.AllocateAddressInput{TagSpecifications: []ec2types.TagSpecification{{
		ResourceType: ec2types.ResourceTypeElasticIp, Tags: ec2Tags(Tags("shop", "seed-0", PartAddress, nil))}}}); err != nil {
		t.Fatal(err)
	}
	a.Inject(emulator.Fault{Service: "ec2", Action: "ReleaseAddress", Times: 2, Code: "InvalidIPAddress.InUse", Message: "still in use"})
	if err := c.Delete(ctx, "shop"); err != nil {
		t.Error(err)
	}
}

// againAtOnce: a parameter that was just deleted is there for a while, to who makes it
// anew (API of Systems Manager, DeleteParameter).
func againAtOnce(t *testing.T, c *Client, a *emulator.AWS) {
	a.Inject(emulator.Fault{Service: "ssm", Action: "PutParameter", Times: 2, Code: "ParameterAlreadyExists", Message: "The parameter already exists."})
	if _, err := c.Create(t.Context(), shopDesign()); err != nil {
		t.Error(err)
	}
	if err := c.Delete(t.Context(), "shop"); err != nil {
		t.Error(err)
	}
}

// functionsKeepTheirNetwork: without its record nobody would find them.
func functionsKeepTheirNetwork(t *testing.T, c *Client, a *emulator.AWS) {
	ctx := t.Context()
	d := shopDesign()
	if _, err := c.Create(ctx, d); err != nil {
		t.Fatal(err)
	}
	role, err := c.RoleARN(ctx, d.Network, PartFunction)
	if err != nil {
		t.Fatal(err)
	}
	s := FunctionSpec{Network: "shop", Node: "logic", Name: d.FunctionName("logic"), Role: role, MemoryMB: 128, TimeoutS: 60, EphemeralMB: 512,
		Code: Code{Zip: []byte("one")}, LogGroup: d.LogGroup("logic")}
	if _, err := c.CreateFunction(ctx, s); err != nil {
		t.Fatal(err)
	}
	before := a.Leftovers()
	if err := c.Delete(ctx, "shop"); err == nil || !strings.Contains(err.Error(), "logic (function boxer-shop_logic)") {
		t.Errorf("deleted from under a function: %v", err)
	}
	if now := a.Leftovers(); len(now) != len(before) {
		t.Errorf("there is %v of %v", now, before)
	}
	if err := errors.Join(c.DeleteFunction(ctx, s.Name, s.LogGroup, nil), c.Delete(ctx, "shop")); err != nil {
		t.Error(err)
	}
}

// logGroupAlone: what was made before a function is said to be there.
func logGroupAlone(t *testing.T, c *Client, a *emulator.AWS) {
	ctx := t.Context()
	s := FunctionSpec{Network: "shop", Node: "logic", Name: "boxer-shop_logic", Role: testRole(t, c, "logic"), MemoryMB: 128, TimeoutS: 60, EphemeralMB: 512,
		Code: Code{Zip: []byte("one")}, LogGroup: "/aws/lambda/boxer-shop_logic", LogDays: 7}
	for _, want := range []bool{true, false} { // the second time it is there
		a.Inject(emulator.Denied("logs", "PutRetentionPolicy"))
		if made, err := c.CreateFunction(ctx, s); err == nil || made != want {
			t.Errorf("made %t, want %t: %v", made, want, err)
		}
		a.Mend()
	}
	role := aws.String("logic")
	if _, err := c.IAM.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: role}); err != nil {
		t.Error(err)
	}
	if err := c.DeleteLogGroup(ctx, s.LogGroup); err != nil {
		t.Error(err)
	}
}

// waitsPastThrottling: that AWS is busy is no word about what is waited for.
func waitsPastThrottling(t *testing.T, c *Client, a *emulator.AWS) {
	hasty, err := Open(t.Context(), Config{MaxRetries: 1})
	if err != nil {
		t.Fatal(err)
	}
	hasty.Pause = c.Pause
	image, err := c.NewestImage(t.Context(), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	made, err := c.RunInstance(t.Context(), InstanceSpec{Network: "shop", Slot: "store", Part: PartVM, Name: "shop/store", Image: image, Type: "t3.micro"})
	if err != nil {
		t.Fatal(err)
	}
	a.Inject(emulator.Throttle("ec2", "DescribeInstances", 3)) // one more than are sent again
	if _, err := hasty.AwaitInstance(t.Context(), made.ID); err != nil {
		t.Error(err)
	}
	if err := c.DeleteInstances(t.Context(), "shop", PartVM, "store"); err != nil {
		t.Error(err)
	}
}

// resizeThatFails: an instance that stays what it was does not stay stopped.
func resizeThatFails(t *testing.T, c *Client, a *emulator.AWS) {
	ctx := t.Context()
	d := shopDesign()
	if _, err := c.Create(ctx, d); err != nil {
		t.Fatal(err)
	}
	a.Inject(emulator.Denied("ec2", "ModifyInstanceAttribute"))
	d.SeedType = "t4g.micro"
	if err := c.Converge(ctx, d); err == nil || !strings.Contains(err.Error(), "UnauthorizedOperation") {
		t.Errorf("%v", err)
	}
	if seed, err := c.FindInstance(ctx, "shop", PartSeed, "seed-0"); err != nil || seed.State != "running" {
		t.Errorf("the seed: %+v, %v", seed, err)
	}
	a.Mend()
	if err := c.Delete(ctx, "shop"); err != nil {
		t.Error(err)
	}
}

// twoRegions: an account has one set of roles for all of them, and each its own network.
func twoRegions(t *testing.T, c *Client, _ *emulator.AWS) {
	ctx := t.Context()
	other, err := Open(ctx, Config{Region: "eu-west-1"})
	if err != nil {
		t.Fatal(err)
	}
	other.Pause = c.Pause
	one, two := shopDesign(), shopDesign()
	if _, err := c.Create(ctx, one); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Create(ctx, two); err != nil {
		t.Fatal(err)
	}
	if found, err := c.Drift(ctx, one.Network); err != nil || len(found) > 0 {
		t.Errorf("after a network of its name was made elsewhere: %q, %v", found, err)
	}
	if err := other.Delete(ctx, "shop"); err != nil {
		t.Error(err)
	}
	if found, err := c.Drift(ctx, one.Network); err != nil || len(found) > 0 {
		t.Errorf("after that was destroyed: %q, %v", found, err)
	}
	if err := c.Delete(ctx, "shop"); err != nil {
		t.Error(err)
	}
}

// TestRanges: EC2 writes ranges in one way, and what it says is compared with what is wanted.
func TestRanges(t *testing.T) {
	for given, want := range map[string]string{"2001:DB8:0::/32": "2001:db8::/32", "10.0.0.0/8": "10.0.0.0/8"} {
		if rules := publishRules([]Opening{{80, []string{given}}}); rules[1].peer != want {
			t.Errorf("%s: %s", given, rules[1].peer)
		}
	}
}
