// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/provider/emulator"
)

// cloudWorkspace is one whose provider works in an account of its own, with layers
// that are small: nobody runs them.
func cloudWorkspace(t *testing.T, a *emulator.AWS, options ...Option) *workspace {
	t.Helper()
	a.Setenv(t)
	layers := WithLayers(func(arch string) ([]byte, error) { return []byte("a layer for " + arch), nil })
	return newWorkspace(t, append([]Option{layers, func(p *boxerProvider) { p.pause = 10 * time.Millisecond }}, options...)...)
}

const awsBlock = "provider \"boxer\" {\n  platform = \"aws\"\n  default_tags = { team = \"shop\" }\n}\n"

func awsNet(name, more string) string {
	return fmt.Sprintf("resource \"boxer_network\" %q {\n  name = %q\n%s\n}\n", name, name, more)
}

// networkOnAWS is the address in Terraform's state.
const networkOnAWS = "boxer_network.shop"

// nothingButLayers fails the test if something else is left in the account, or if
// more was asked than boxer iam-policy allows.
func nothingButLayers(t *testing.T, a *emulator.AWS) {
	t.Helper()
	allowed := map[string]bool{}
	for _, s := range cloud.Applying(cloud.Scope{}).Statement {
		for _, action := range s.Action {
			allowed[action] = true
		}
	}
	for _, call := range a.Calls() {
		if !allowed[cloud.Action(call.Service, call.Action)] {
			t.Errorf("%s was called, which boxer iam-policy does not allow", call)
		}
	}
	if left := a.Leftovers(); len(left) > 0 {
		t.Errorf("left after destroy: %s", strings.Join(left, ", "))
	}
}

// TestAccNetworkOnAWS is the life of a network: made, read the same, changed in place
// and by hand, imported, read from elsewhere, destroyed with nothing left but layers.
func TestAccNetworkOnAWS(t *testing.T) {
	a := emulator.Start(t)
	w := cloudWorkspace(t, a)
	w.configure(awsBlock + awsNet("shop", ""))
	w.apply()
	w.emptyPlan()
	made := w.values(networkOnAWS)
	if made["secret_ref"] != "ssm:us-east-1/boxer/shop/secret" || len(made["layer_arns"].([]any)) != 2 || len(made["seed_endpoints"].([]any)) != 1 ||
		made["name_prefix"] != "boxer-" || made["log_retention_days"] != 14.0 || !strings.HasPrefix(fmt.Sprint(made["vpc_id"]), "vpc-") {
		t.Errorf("state: %v", made)
	}
	for _, o := range a.Objects() {
		if o.Kind != "layer" && (o.Tags["boxer:network"] != "shop" || o.Tags["boxer:part"] == "" || o.Tags["team"] != "shop") {
			t.Errorf("%s is tagged %v", o, o.Tags)
		}
	}
	if t.Failed() {
		return
	}
	c := a.Config()
	steps := []struct {
		name string
		run  func(t *testing.T)
	}{
		{"the secret is nowhere", func(t *testing.T) { secretNowhere(t, a, w) }},
		{"the secret is in no log", func(t *testing.T) { inNoLog(t, a) }},
		{"in place", func(t *testing.T) {
			w.configure(awsBlock + awsNet("shop", `
				seed = { instance_type = "t4g.micro", ingress_cidrs = ["198.51.100.0/24"] }
				log_retention_days = 30
				tags = { stage = "test" }`))
			if got := w.planned()[networkOnAWS]; got != "update" {
				t.Fatalf("planned %q", got)
			}
			w.apply()
			w.emptyPlan()
			now := w.values(networkOnAWS)
			if fmt.Sprint(now["seed_endpoints"]) != fmt.Sprint(made["seed_endpoints"]) || fmt.Sprint(now["layer_arns"]) != fmt.Sprint(made["layer_arns"]) {
				t.Errorf("%v after %v", now, made)
			}
			if seed := seedInstance(t, c); seed.InstanceType != "t4g.micro" || ec2Tag(seed.Tags, "stage") != "test" {
				t.Errorf("the seed: %s, %v", seed.InstanceType, seed.Tags)
			}
		}},
		{"drift", func(t *testing.T) { driftOnAWS(t, a, w, made) }},
		{"another home", func(t *testing.T) {
			other := cloudWorkspace(t, a)
			for _, name := range []string{"main.tf", "terraform.tfstate"} {
				text, err := os.ReadFile(filepath.Join(w.dir, name))
				if err != nil {
					t.Fatal(err)
				}
				other.write(name, string(text))
			}
			other.emptyPlan()
		}},
		{"exists", func(t *testing.T) {
			other := cloudWorkspace(t, a)
			other.configure(awsBlock + awsNet("shop", ""))
			other.golden("aws/network exists", other.errors("apply", "-auto-approve", "-input=false"), nil)
		}},
		{"import", func(t *testing.T) {
			w.must("state", "rm", networkOnAWS)
			w.must("import", "-no-color", "-input=false", networkOnAWS, "shop")
			w.emptyPlan()
		}},
		{"destroy", func(t *testing.T) {
			w.destroy()
			nothingButLayers(t, a)
		}},
	}
	for _, step := range steps {
		if t.Failed() {
			return // each goes on from the one before
		}
		t.Run(step.name, func(t *testing.T) {
			w.t = t
			step.run(t)
		})
	}
	w.t = t
}

func seedInstance(t *testing.T, c aws.Config) ec2types.Instance {
	t.Helper()
	out, err := ec2.NewFromConfig(c).DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{Filters: []ec2types.Filter{
		{Name: aws.String("tag:boxer:part"), Values: []string{"seed"}}, {Name: aws.String("instance-state-name"), Values: []string{"running", "stopped"}},
	}})
	if err != nil || len(out.Reservations) != 1 {
		t.Fatalf("%d seeds, %v", len(out.Reservations), err)
	}
	return out.Reservations[0].Instances[0]
}

func ec2Tag(tags []ec2types.Tag, key string) string {
	for _, tag := range tags {
		if aws.ToString(tag.Key) == key {
			return aws.ToString(tag.Value)
		}
	}
	return ""
}

// driftOnAWS changes things by hand, one after the other: each is planned to be put right,
// and then is.
func driftOnAWS(t *testing.T, a *emulator.AWS, w *workspace, made map[string]any) {
	c := a.Config()
	compute, rights, parameters := ec2.NewFromConfig(c), iam.NewFromConfig(c), ssm.NewFromConfig(c)
	group := func() *string {
		out, err := compute.DescribeSecurityGroups(t.Context(), &ec2.DescribeSecurityGroupsInput{Filters: []ec2types.Filter{{Name: aws.String("group-name"), Values: []string{"boxer-shop"}}}})
		if err != nil || len(out.SecurityGroups) != 1 {
			t.Fatalf("%v, %v", out, err)
		}
		return out.SecurityGroups[0].GroupId
	}
	changes := map[string]func() error{
		"the seed terminated": func() error {
			_, err := compute.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{*seedInstance(t, c).InstanceId}})
			return err
		},
		"the seed stopped": func() error {
			_, err := compute.StopInstances(t.Context(), &ec2.StopInstancesInput{InstanceIds: []string{*seedInstance(t, c).InstanceId}})
			return err
		},
		"a role's policy": func() error {
			_, err := rights.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: aws.String("boxer-shop_vm_us-east-1"), PolicyName: aws.String("boxer"),
				PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["*"],"Resource":["*"]}]}`)})
			return err
		},
		"a rule added": func() error {
			_, err := compute.AuthorizeSecurityGroupIngress(t.Context(), &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group(), IpPermissions: []ec2types.IpPermission{
				{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(22), ToPort: aws.Int32(22), IpRanges: []ec2types.IpRange{{CidrIp: aws.String("0.0.0.0/0")}}}}})
			return err
		},
		"a rule removed": func() error {
			_, err := compute.RevokeSecurityGroupIngress(t.Context(), &ec2.RevokeSecurityGroupIngressInput{GroupId: group(), IpPermissions: []ec2types.IpPermission{
				{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(7717), ToPort: aws.Int32(7718), IpRanges: []ec2types.IpRange{{CidrIp: aws.String("198.51.100.0/24")}}}}})
			return err
		},
		"a tag of the group": func() error {
			_, err := compute.DeleteTags(t.Context(), &ec2.DeleteTagsInput{Resources: []string{*group()}, Tags: []ec2types.Tag{{Key: aws.String("team")}}})
			return err
		},
		"the secret's tag": func() error {
			_, err := parameters.AddTagsToResource(t.Context(), secretTag())
			return err
		},
		"the function's role": func() error {
			if _, err := rights.DeleteRolePolicy(t.Context(), &iam.DeleteRolePolicyInput{RoleName: aws.String("boxer-shop_function_us-east-1"), PolicyName: aws.String("boxer")}); err != nil {
				return err
			}
			_, err := rights.DeleteRole(t.Context(), &iam.DeleteRoleInput{RoleName: aws.String("boxer-shop_function_us-east-1")})
			return err
		},
	}
	for name, change := range changes {
		if err := change(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := w.planned()[networkOnAWS]; got != "update" {
			t.Fatalf("%s: planned %q", name, got)
		}
		w.apply()
		w.emptyPlan()
		if now := w.values(networkOnAWS); fmt.Sprint(now["seed_endpoints"]) != fmt.Sprint(made["seed_endpoints"]) {
			t.Errorf("%s: endpoints %v after %v", name, now["seed_endpoints"], made["seed_endpoints"])
		}
	}
}

// secretNowhere looks for the secret in all that was written down or asked.
func secretNowhere(t *testing.T, a *emulator.AWS, w *workspace) {
	t.Helper()
	out, err := ssm.NewFromConfig(a.Config()).GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("/boxer/shop/secret"), WithDecryption: aws.Bool(true)})
	if err != nil || len(*out.Parameter.Value) < 32 || string(out.Parameter.Type) != "SecureString" {
		t.Fatalf("the secret: %v, %v", out, err)
	}
	secret := *out.Parameter.Value
	w.must("plan", "-out=plan.bin", "-input=false")
	for name, text := range map[string]string{
		"state": fmt.Sprint(w.must("state", "pull")), "plan": w.must("show", "-json", "plan.bin"), "user data": userData(t, a),
	} {
		if strings.Contains(text, secret) {
			t.Errorf("the secret is in the %s", name)
		}
	}
	for _, call := range a.Calls() {
		if strings.Contains(call.Body, secret) && (call.String() != "ssm.PutParameter" || !strings.Contains(call.Body, "SecureString")) {
			t.Errorf("the secret is in a call of %s", call)
		}
	}
}

func userData(t *testing.T, a *emulator.AWS) string {
	t.Helper()
	var all []string
	for _, call := range a.Calls("ec2.RunInstances") {
		all = append(all, decodedUserData(t, call.Form().Get("UserData")))
	}
	if len(all) == 0 || !slices.ContainsFunc(all, func(text string) bool { return strings.Contains(text, "seed-0") }) {
		t.Fatalf("no user data of a seed: %q", all)
	}
	return strings.Join(all, "\n")
}
