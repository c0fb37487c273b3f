// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// What a node on AWS is made of when nothing else is said.
const (
	defaultInstanceX86 = "t3.micro"
	defaultInstanceARM = "t4g.micro"
	defaultVolumeType  = "gp3"

	archX86 = "amd64"
	archARM = "arm64"
)

// awsNode is what a node resource says that only AWS understands.
type awsNode struct {
	Architecture     string
	SecurityGroupIDs []string

	// VM nodes.
	ImageID, InstanceType, SubnetID, KeyName, InstanceProfile, UserData string
	Spot                                                                bool
	RootVolume                                                          *awsVolume

	// Function nodes.
	ImageURI, RoleARN string
	SubnetIDs         []string
	Reserved          *int32 // concurrency; nil: none is reserved
}

// awsVolume is an instance's root volume.
type awsVolume struct {
	SizeGB, IOPS int32 // 0: the image's, the type's
	Type         string
	Encrypted    bool
}

// awsVM is what AWS tells of an instance.
type awsVM struct {
	InstanceID, PrivateIP, PublicIP, ImageID string
	Unrecorded                               bool // what it was told to be nobody knows
	Seen                                     seenInstance
}

// seenInstance is what EC2 tells of an instance whose record is lost: whether it was told
// so, or has it by default, nobody knows.
type seenInstance struct {
	Type    string `json:"type"`
	Subnet  string `json:"subnet"`
	KeyName string `json:"key_name"`
	Spot    bool   `json:"spot"`
}

// has says whether an instance that is replaced for another value of an attribute has
// this one.
func (i seenInstance) has(name string, planned attr.Value) bool {
	if i.Type == "" {
		return false
	}
	return planned.Equal(map[string]attr.Value{
		"instance_type": types.StringValue(i.Type), "architecture": types.StringValue(archOf(i.Type)), "subnet_id": types.StringValue(i.Subnet),
		"key_name": types.StringValue(i.KeyName), "spot": types.BoolValue(i.Spot),
	}[name])
}

// seenKey is where private state keeps it.
const seenKey = "seen"

func noteSeen(ctx context.Context, private privateWriter, seen seenInstance) diag.Diagnostics {
	value, err := json.Marshal(seen)
	if err != nil {
		return diag.Diagnostics{diag.NewErrorDiagnostic("Noting what an instance is", detail(err))}
	}
	return private.SetKey(ctx, seenKey, value)
}

func notedSeen(ctx context.Context, private privateReader) (seen seenInstance) {
	if value, _ := private.GetKey(ctx, seenKey); value != nil {
		_ = json.Unmarshal(value, &seen)
	}
	return seen
}

// awsFunction is what AWS tells of a function.
type awsFunction struct {
	ARN, LogGroup string
	Unrecorded    bool // what it was told to be nobody knows
}

// onAWS: the nodes of p are instances and functions of AWS.
func onAWS(p platform) bool {
	aws, ok := settingsOf(p).platform.(interface{ OnAWS() bool })
	return ok && aws.OnAWS()
}

var graviton = regexp.MustCompile(`^(a1|[a-z]+(-[a-z0-9]+)?[0-9]+[a-z]*g[a-z]*)\.`)

// archOf is the architecture of an instance type's processors, as its name says:
// a g after the generation, as in t4g, m7gd, im4gn, stands for Graviton.
func archOf(instanceType string) string {
	if graviton.MatchString(instanceType) {
		return archARM
	}
	return archX86
}

func checkInstanceType(name string) error {
	family, size, ok := strings.Cut(name, ".")
	if !ok || family == "" || size == "" || strings.ToLower(name) != name || strings.ContainsAny(name, " \t") {
		return fmt.Errorf("%q is no instance type: write a family and a size, such as t3.micro, or t4g.micro for arm64", name)
	}
	return nil
}

// idCheck wants an identifier of AWS that begins with prefix.
func idCheck(prefix, what, example string) func(string) error {
	return func(id string) error {
		rest, ok := strings.CutPrefix(id, prefix)
		if !ok || len(rest) < 4 || strings.Trim(rest, "0123456789abcdefghijklmnopqrstuvwxyz") != "" {
			return fmt.Errorf("%q is not the id of %s: write one such as %s", id, what, example)
		}
		return nil
	}
}

var imageURI = regexp.MustCompile(`^[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/[a-z0-9._/-]+(:[A-Za-z0-9._-]+)?(@sha256:[0-9a-f]{64})?$`)

func checkImageURI(uri string) error {
	if !imageURI.MatchString(uri) {
		return fmt.Errorf("%q is no image that Lambda can use: push it to a private ECR repository of the region, and name it there, as in "+
			"123456789012.dkr.ecr.eu-central-1.amazonaws.com/app:1", uri)
	}
	return nil
}

var roleARN = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$`)

func checkRoleARN(arn string) error {
	if !roleARN.MatchString(arn) {
		return fmt.Errorf("%q is not the ARN of a role: write one such as arn:aws:iam::123456789012:role/app", arn)
	}
	return nil
}

var profileName = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)

func checkInstanceProfile(name string) error {
	if strings.HasPrefix(name, "arn:") {
		return fmt.Errorf("%q is an ARN: write the name, %q", name, name[strings.LastIndexByte(name, '/')+1:])
	}
	if !profileName.MatchString(name) {
		return fmt.Errorf("%q is no name of an instance profile: write one such as app, with letters, digits and + = , . @ _ -", name)
	}
	return nil
}

// onlyAWS refuses attributes that the local platform has no meaning for. It would
// be worse to ignore what somebody relies on.
func onlyAWS(given map[string]bool, diags *diag.Diagnostics) {
	names := make([]string, 0, len(given))
	for name, set := range given {
		if set {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		diags.AddAttributeError(path.Root(name), "Only on AWS",
			fmt.Sprintf("The local platform has no %s: leave it out here, or set platform = \"aws\" in the provider block.", name))
	}
}

// architecture is that of a node: what is said, what the instance type has, or amd64.
func (a awsNode) architecture() string {
	switch {
	case a.Architecture != "":
		return a.Architecture
	case a.InstanceType != "":
		return archOf(a.InstanceType)
	}
	return archX86
}

// instanceType is the one said, or the smallest sensible one.
func (a awsNode) instanceType() string {
	fallback := defaultInstanceX86
	if a.Architecture == archARM {
		fallback = defaultInstanceARM
	}
	return cmp.Or(a.InstanceType, fallback)
}

// checkArchitecture: the processors of the instance type run what is said.
func (a awsNode) checkArchitecture() error {
	if a.Architecture == "" || a.InstanceType == "" || archOf(a.InstanceType) == a.Architecture {
		return nil
	}
	other := defaultInstanceX86
	if a.Architecture == archARM {
		other = defaultInstanceARM
	}
	return fmt.Errorf("architecture is %s, but instances of type %s are %s: choose a type such as %s, or leave architecture out",
		a.Architecture, a.InstanceType, archOf(a.InstanceType), other)
}

func stringList(ctx context.Context, list types.List, diags *diag.Diagnostics) []string {
	if list.IsNull() || list.IsUnknown() {
		return nil
	}
	var values []string
	diags.Append(list.ElementsAs(ctx, &values, false)...)
	return values
}

// keepList is found, in the form of known if both say the same in any order.
func keepList(ctx context.Context, known types.List, found []string, diags *diag.Diagnostics) types.List {
	have := stringList(ctx, known, diags)
	if slices.Equal(slices.Sorted(slices.Values(have)), slices.Sorted(slices.Values(found))) {
		return known
	}
	if len(found) == 0 {
		return types.ListNull(types.StringType)
	}
	list, d := types.ListValueFrom(ctx, types.StringType, found)
	diags.Append(d...)
	return list
}

// checkUserData refuses none at all; what it is cloud-init's forms say (layer.UserData).
func checkUserData(text string) error {
	if strings.TrimSpace(text) == "" {
		return errors.New("user_data is empty: leave it out")
	}
	return nil
}
