// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/provider/emulator"
)

// TestSeedTypeLeftOut: what is left out is the default, of another architecture perhaps.
func TestSeedTypeLeftOut(t *testing.T) {
	f := newFakePlatform()
	f.aws = true
	w := newWorkspace(t, withPlatform(f))
	network := func(more string) string {
		return "resource \"boxer_network\" \"shop\" {\n name = \"shop\"\n" + more + "\n}\n"
	}
	w.configure(network(`seed = { instance_type = "t3.nano" }`))
	w.apply()
	w.emptyPlan()
	for _, more := range []string{"", "seed = {}", "seed = { count = 1 }"} {
		w.configure(network(more))
		if got := w.planned()["boxer_network.shop"]; got != "delete,create" {
			t.Errorf("%q: planned %q, want a replacement", more, got)
		}
	}
}

// onEmulator is the platform in an account that there is nothing in.
func onEmulator(t *testing.T) (*awsPlatform, *emulator.AWS) {
	t.Helper()
	a := emulator.Start(t)
	a.Setenv(t)
	client, err := cloud.Open(t.Context(), cloud.Config{})
	if err != nil {
		t.Fatal(err)
	}
	client.Pause = 10 * time.Millisecond
	return newAWSPlatform(client, func(arch string) ([]byte, error) { return []byte("a layer for " + arch), nil }), a
}

// TestUpdateKeepsArchitecture: a type that only apply knew is refused before anything is written.
func TestUpdateKeepsArchitecture(t *testing.T) {
	p, _ := onEmulator(t)
	spec := networkSpec{Name: "shop", CIDR: "100.80.0.0/16", Port: 7717, Seeds: 1, RuntimeVersion: "1",
		AWS: awsNetwork{NamePrefix: cloud.DefaultPrefix, SeedInstanceType: "t3.nano"}}
	if _, err := p.CreateNetwork(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	spec.AWS.SeedInstanceType = "t4g.nano"
	if _, err := p.UpdateNetwork(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "seeds of type t4g.nano are arm64") {
		t.Errorf("changed: %v", err)
	}
	if n, err := p.cloud.Network(t.Context(), "shop"); err != nil || n.SeedType != "t3.nano" {
		t.Errorf("the record: %+v, %v", n, err)
	}
}

// TestRoleNames: what there is keeps the names of its roles, and a region that is known counts.
func TestRoleNames(t *testing.T) {
	made := func(letters int) *networkModel {
		return &networkModel{Name: types.StringValue(strings.Repeat("a", letters)), networkAWSModel: networkAWSModel{NamePrefix: types.StringValue(cloud.DefaultPrefix)}}
	}
	short := &awsPlatform{cloud: &cloud.Client{Region: "eu-west-1"}}
	for _, tt := range []struct {
		letters int
		had     *networkModel
		on      platform
		refused bool
	}{
		{34, &networkModel{}, newFakePlatform(), false}, {35, &networkModel{}, newFakePlatform(), true}, {49, made(49), newFakePlatform(), false},
		{49, made(48), newFakePlatform(), true}, {39, &networkModel{}, short, false}, {40, &networkModel{}, short, true},
	} {
		var diags diag.Diagnostics
		made(tt.letters).checkRoleNames(tt.had, tt.on, &diags)
		if diags.HasError() != tt.refused {
			t.Errorf("%d letters: %v", tt.letters, diags)
		}
	}
}

// TestUpgradeSetBack: an upgrade that ended half-way is not forgotten because the
// configuration is as before.
func TestUpgradeSetBack(t *testing.T) {
	for _, tt := range []struct {
		upgrading, planned, own string
		refused                 bool
	}{{"2", "1", "2", true}, {"2", "1", "1", false}, {"2", "2", "2", false}, {"2", "1", "3", true}, {"", "1", "2", false}} {
		var diags diag.Diagnostics
		checkUpgrade(tt.upgrading, types.StringValue(tt.planned), tt.own, &diags)
		if diags.HasError() != tt.refused {
			t.Errorf("%+v: %v", tt, diags)
		}
	}
	f := newFakePlatform()
	f.aws = true
	w := newWorkspace(t, withPlatform(f), func(p *boxerProvider) { p.version = "2" })
	w.configure(shop)
	w.apply()
	f.change(func() {
		n := f.networks["shop"]
		n.RuntimeVersion, n.Upgrading, n.Drift = "1", "2", []string{"its upgrade ended half-way"}
		f.networks["shop"] = n
	})
	if found := w.errors("plan", "-input=false"); len(found) == 0 || found[0].Summary != "Upgrade that ended half-way" {
		t.Errorf("%v", found)
	}
	w.configure("resource \"boxer_network\" \"shop\" {\n name = \"shop\"\n runtime_version = \"2\"\n}\n")
	if got := w.planned()["boxer_network.shop"]; got != "update" {
		t.Errorf("planned %q", got)
	}
}

// TestUpgradeHalfWay: the record says what was begun until all of the network has one version.
func TestUpgradeHalfWay(t *testing.T) {
	p, a := onEmulator(t)
	ctx := t.Context()
	spec := networkSpec{Name: "shop", CIDR: "100.80.0.0/16", Port: 7717, Seeds: 1, RuntimeVersion: "1",
		AWS: awsNetwork{NamePrefix: cloud.DefaultPrefix, SeedInstanceType: "t4g.nano"}}
	if _, err := p.CreateNetwork(ctx, spec); err != nil {
		t.Fatal(err)
	}
	status := func(what, runs, upgrading string) {
		t.Helper()
		got, err := p.Network(ctx, "shop")
		if err != nil || got.RuntimeVersion != runs || got.Upgrading != upgrading || len(got.Drift) > 0 != (upgrading != "") {
			t.Errorf("%s: runs %q, to %q, drift %q, %v", what, got.RuntimeVersion, got.Upgrading, got.Drift, err)
		}
	}
	spec.RuntimeVersion, spec.Carried = "2", "2"
	a.Inject(emulator.Denied("lambda", "ListFunctions"))
	if _, err := p.UpdateNetwork(ctx, spec); err == nil {
		t.Error("it did not fail")
	}
	a.Mend()
	status("half-way", "1", "2")
	spec.RuntimeVersion = "1"
	if _, err := p.UpdateNetwork(ctx, spec); err != nil {
		t.Error(err)
	}
	status("with layers of another version", "1", "2")
	spec.Carried = "1"
	if _, err := p.UpdateNetwork(ctx, spec); err != nil {
		t.Error(err)
	}
	status("set back", "1", "")
}

// TestUnrecordedInstance: what EC2 tells of an instance without a record is taken for
// what was asked for, and its own name is not the console's.
func TestUnrecordedInstance(t *testing.T) {
	p, _ := onEmulator(t)
	ctx := t.Context()
	spec := networkSpec{Name: "shop", CIDR: "100.80.0.0/16", Port: 7717, Seeds: 1, RuntimeVersion: "1",
		AWS: awsNetwork{NamePrefix: cloud.DefaultPrefix, SeedInstanceType: "t4g.nano"}}
	if _, err := p.CreateNetwork(ctx, spec); err != nil {
		t.Fatal(err)
	}
	image, err := p.cloud.NewestImage(ctx, archX86)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"shop/store", ""} {
		tags := map[string]string{"Name": name}
		made, err := p.cloud.RunInstance(ctx, cloud.InstanceSpec{Network: "shop", Slot: "store", Part: cloud.PartVM, Name: "shop/store",
			Image: image, Type: "t3.small", Tags: tags})
		if err != nil {
			t.Fatal(err)
		}
		status, err := p.VM(ctx, "shop", "store")
		if err != nil || !status.AWS.Seen.has("instance_type", types.StringValue("t3.small")) || status.AWS.Seen.has("spot", types.BoolValue(true)) ||
			!status.AWS.Seen.has("subnet_id", types.StringValue(made.Subnet)) || status.AWS.Seen.has("user_data", types.StringNull()) {
			t.Errorf("%+v, %v", status.AWS, err)
		}
		if err := p.keepRecord(ctx, nodeSpec{Network: "shop", Name: "store", Kind: "vm", Tags: tags}, awsRecord{}); err != nil {
			t.Fatal(err)
		}
		status, err = p.VM(ctx, "shop", "store")
		if got, own := status.Spec.Tags["Name"]; err != nil || !own || got != name || status.AWS.Seen.Type != "" {
			t.Errorf("with a record: tags %q, seen %+v, %v", status.Spec.Tags, status.AWS.Seen, err)
		}
		if err := p.DeleteVM(ctx, "shop", "store"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnrecordedIsNotReplaced: an imported instance is not replaced for what it has.
func TestUnrecordedIsNotReplaced(t *testing.T) {
	f := newFakePlatform()
	f.aws = true
	w := newWorkspace(t, withPlatform(f))
	w.configure(shop + vm("store", `["sleep", "60"]`, ""))
	w.apply()
	f.change(func() {
		store := f.vms["store"]
		store.AWS.Unrecorded, store.AWS.Seen = true, seenInstance{Type: "t3.small", Subnet: "subnet-01234567", KeyName: "me", Spot: true}
		f.vms["store"] = store
	})
	for has, want := range map[string]string{
		"instance_type = \"t3.small\"\nsubnet_id = \"subnet-01234567\"\nkey_name = \"me\"\nspot = true\narchitecture = \"amd64\"": "update",
		`instance_type = "t3.large"`: "delete,create", `key_name = "you"`: "delete,create",
	} {
		w.configure(shop + vm("store", `["sleep", "60"]`, has))
		if got := w.planned()[storeVM]; got != want {
			t.Errorf("%s: planned %q, want %q", has, got, want)
		}
	}
}

// TestImageOfArchitecture: an image that nobody named goes with the processors.
func TestImageOfArchitecture(t *testing.T) {
	for line, want := range map[string]bool{`architecture = "arm64"`: true, `instance_type = "t4g.small"`: true, `instance_type = "t3.small"`: false} {
		model := func() vmAWSModel { return vmAWSModel{SecurityGroupIDs: types.ListNull(types.StringType)} }
		old, m := model(), model()
		name, value, _ := strings.Cut(strings.ReplaceAll(line, "\"", ""), " = ")
		if name == "architecture" {
			m.Architecture = types.StringValue(value)
		} else {
			m.InstanceType = types.StringValue(value)
		}
		if got := m.imageMoves(t.Context(), &old, seenInstance{}); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
	if m := (&vmAWSModel{InstanceType: types.StringUnknown()}); !m.imageMoves(t.Context(), &vmAWSModel{}, seenInstance{}) {
		t.Error("a type that is not known yet keeps the image")
	}
}
