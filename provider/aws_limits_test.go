// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func vmOnAWS(lines string) string {
	return vmStart + "  command = [\"sleep\", \"60\"]\n" + lines + "\n}"
}

func functionOnAWS(command, lines string) string {
	return strings.Replace(functionWith(lines), `["x"]`, command, 1)
}

// noise is text that does not compress.
func noise(size int) string {
	var b strings.Builder
	for state := uint32(1); b.Len() < size; {
		state = state*1664525 + 1013904223
		b.WriteByte("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"[state>>26])
	}
	return b.String()
}

// refusedOnAWS are configurations that AWS would refuse, or let fail, much later.
func refusedOnAWS() map[string]string {
	return map[string]string{
		"user data unknown":       vmOnAWS(`  user_data = "install what I need"`),
		"user data empty":         vmOnAWS(`  user_data = " "`),
		"image id":                vmOnAWS(`  image_id = "al2023"`),
		"instance type":           vmOnAWS(`  instance_type = "large"`),
		"other processors":        vmOnAWS("  instance_type = \"t4g.small\"\n  architecture = \"amd64\""),
		"subnet":                  vmOnAWS(`  subnet_id = "10.0.0.0/24"`),
		"group":                   vmOnAWS(`  security_group_ids = ["default"]`),
		"gp2 with iops":           vmOnAWS(`  root_volume = { type = "gp2", iops = 3000 }`),
		"io2 without iops":        vmOnAWS(`  root_volume = { type = "io2" }`),
		"tag that metadata lack":  vmOnAWS(`  tags = { "cost centre" = "7" }`),
		"long name of a function": functionWith("", strings.Repeat("a", 59)),
		"port of a function":      strings.Replace(functionWith(""), `["x"]`, `["redis-server", "--port", "80"]`, 1),
		"bucket for a vm":         vmOnAWS(`  package = "s3://shop/app.zip"`),
		"foreign program":         strings.Replace(vmOnAWS("  source_dir = \"./app\""), `["sleep", "60"]`, `["/var/task/arm"]`, 1),
		"reserved variable":       functionOnAWS(`["sleep", "60"]`, `environment = { AWS_REGION = "eu-central-1", LAMBDA_TASK_ROOT = "/", AWS_LAMBDA_X = "y" }`),
		"file out of reach":       functionOnAWS(`["sleep", "60"]`, `files = { "/etc/shop.conf" = "x", "/tmp/shop.conf" = "y" }`),
		"reserved too few":        functionOnAWS(`["sleep", "60"]`, "desired_count = 3\n  reserved_concurrency = 2"),
		"two sources":             functionOnAWS(`["sleep", "60"]`, "source_dir = \"./app\"\n  image_uri = \"123456789012.dkr.ecr.eu-central-1.amazonaws.com/app:1\""),
		"image elsewhere":         functionOnAWS(`["sleep", "60"]`, `image_uri = "docker.io/library/redis"`),
		"groups without subnets":  functionOnAWS(`["sleep", "60"]`, `security_group_ids = ["sg-01234567"]`),
		"role":                    functionOnAWS(`["sleep", "60"]`, `role_arn = "admin"`),
		"bucket without key":      functionOnAWS(`["sleep", "60"]`, `package = "s3://shop"`),
		"program of another":      functionOnAWS(`["/var/task/arm"]`, `source_dir = "./app"`),
		"package too large":       functionOnAWS(`["sleep", "60"]`, `source_dir = "./large"`),
		"package needs a bucket":  functionOnAWS(`["sleep", "60"]`, `source_dir = "./direct"`),
	}
}

func TestRefusedOnAWS(t *testing.T) {
	f := newFakePlatform()
	f.aws = true
	w := newWorkspace(t, withPlatform(f))
	w.write("app/arm", elfOf(183))
	// A file with a hole: nothing reads what is too large anyway.
	for _, name := range []string{"large/hole", "direct/a"} {
		w.write(name, "")
	}
	if err := os.Truncate(filepath.Join(w.dir, "large/hole"), 3<<20); err != nil {
		t.Fatal(err)
	}
	w.write("direct/a", noise(2<<20)) // six bits in each byte
	defer func(direct, unzipped int64) { maxDirectZip, maxUnzipped = direct, unzipped }(maxDirectZip, maxUnzipped)
	maxDirectZip, maxUnzipped = 1<<20, layerSize+5<<19
	w.refuses("aws", refusedOnAWS())
}

// elfOf is the beginning of a program for a machine.
func elfOf(machine uint16) string {
	head := make([]byte, elfHeader)
	copy(head, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(head[18:], machine)
	return string(head)
}

func TestLaunchEventTooLarge(t *testing.T) {
	spec := nodeSpec{Network: "shop", Name: "logic", Kind: "function", Command: []string{"x"}, Environment: map[string]string{"A": strings.Repeat("a", maxEvent-1000)}}
	if err := checkEvent(spec); err != nil {
		t.Error(err)
	}
	spec.Environment["B"] = strings.Repeat("b", 1000)
	if err := checkEvent(spec); err == nil || !strings.Contains(err.Error(), "and Lambda takes 1048576: put large values into files") {
		t.Error(err)
	}
}

// The sizes in the message are those of the bootstrap script of the day.
func TestUserDataTooLarge(t *testing.T) {
	f := newFakePlatform()
	f.aws = true
	w := newWorkspace(t, withPlatform(f))
	w.configure(vmOnAWS(`  user_data = "#!/bin/sh\n# ` + noise(16<<10) + `"`))
	found := w.errors("plan", "-input=false")
	if len(found) != 1 || found[0].Summary != "Invalid user data" || !strings.Contains(found[0].Detail, "bytes are more than the 16384 a VM takes") ||
		!strings.Contains(found[0].Detail, "shorten user_data") {
		t.Errorf("%v", found)
	}
}

// What only AWS has is refused elsewhere, and not ignored.
func TestOnlyOnAWS(t *testing.T) {
	w := newWorkspace(t, withPlatform(newFakePlatform()))
	cases := map[string]string{}
	for name, line := range map[string]string{
		"vm architecture": `architecture = "arm64"`, "vm spot": `spot = true`, "vm volume": `root_volume = { size = 20 }`, "vm data": `user_data = "#!/bin/sh"`,
	} {
		cases["only "+name] = vmOnAWS("  " + line)
	}
	for name, line := range map[string]string{
		"function subnets": `subnet_ids = ["subnet-01234567"]`, "function concurrency": `reserved_concurrency = 5`, "function bucket": `package = "s3://shop/app.zip"`,
		"function architecture": `architecture = "amd64"`,
	} {
		cases["only "+name] = functionWith(line)
	}
	w.refuses("aws", cases)
}

func TestPortsOfACommand(t *testing.T) {
	for command, want := range map[string][]portGuess{
		"redis-server --port 6379":                  {{6379, true}},
		"nginx -g daemon --listen=0.0.0.0:80":       {{80, true}},
		"python3 -m http.server 80":                 nil, // no way to tell it from other numbers
		"serve -p 9001 --bind 127.0.0.1:3000 :8080": {{9001, false}, {3000, true}, {8080, false}},
		"sleep 60": nil,
		"app --port=443 --timeout=30 --ratio 1:2":      {{443, true}},
		"app --port=443 :80":                           {{443, true}, {80, false}},
		"app --listen [::]:53 http://store:80/ a:b:80": {{53, true}},
	} {
		if got := portsOf(strings.Fields(command)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", command, got, want)
		}
	}
	for port, refused := range map[int]bool{80: true, 1023: true, 1024: false, 3000: true, 9001: true, 6379: false} {
		if err := checkPort(port); (err != nil) != refused {
			t.Errorf("%d: %v", port, err)
		}
	}
}

func TestArchitectureOfInstances(t *testing.T) {
	for name, want := range map[string]string{
		"t3.micro": archX86, "t4g.nano": archARM, "m7gd.large": archARM, "g4dn.xlarge": archX86, "g5g.xlarge": archARM, "im4gn.large": archARM,
		"is4gen.medium": archARM, "c5n.large": archX86, "a1.medium": archARM, "u-6tb1.metal": archX86, "p4d.24xlarge": archX86, "i3.large": archX86,
		"x2gd.medium": archARM, "m6i.large": archX86, "hpc7g.4xlarge": archARM, "g4ad.xlarge": archX86,
	} {
		if got := archOf(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestCommandOnAWS: a command that is not in the package is a warning.
func TestCommandOnAWS(t *testing.T) {
	f := newFakePlatform()
	f.aws = true
	w := newWorkspace(t, withPlatform(f))
	w.write("app/run", "#!/bin/sh\n")
	warns := func(want bool, config string) {
		t.Helper()
		w.configure(strings.ReplaceAll(config, "\"./", "\""+w.dir+"/"))
		out, status := w.run("plan", "-input=false", "-json")
		if found := diagnosticsIn(out); status != 0 || (len(found) > 0) != want || want && found[0].Severity != "warning" {
			t.Errorf("%s:\nstatus %d, %v", config, status, found)
		}
	}
	warns(false, functionOnAWS(`["sleep", "60"]`, ""))
	warns(false, functionOnAWS(`["/var/task/run"]`, `source_dir = "./app"`))
	warns(true, functionOnAWS(`["/var/task/runs"]`, `source_dir = "./app"`))
	warns(true, functionOnAWS(`["redis-server"]`, ""))
	warns(false, functionOnAWS(`["redis-server"]`, `image_uri = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/app:1"`))
	warns(true, functionOnAWS(`["sleep", "-p", "80"]`, ""))
	warns(true, vmStart+"  command = [\"redis-server\"]\n}")
	warns(false, vmStart+"  command = [\"redis-server\"]\n  user_data = \"#!/bin/sh\\ndnf -y install redis6\"\n}")
}

// TestVMNodeOnAWS: what the plan says of an instance, and what replaces it.
func TestVMNodeOnAWS(t *testing.T) {
	f := newFakePlatform()
	f.aws = true
	w := newWorkspace(t, withPlatform(f))
	w.write("app/a", "one")
	w.write("other/a", "two")
	config := func(more string) string {
		return shop + vm("store", `["sleep", "60"]`, strings.ReplaceAll(more, "\"./", "\""+w.dir+"/"))
	}
	w.configure(config("source_dir = \"./app\"\nenvironment = { A = \"a\" }"))
	w.apply()
	w.emptyPlan()
	got := w.values(storeVM)
	if got["instance_id"] != "i-1" || got["public_ip"] != "203.0.113.7" || got["image_id"] != "ami-0123456789abcdef0" {
		t.Errorf("%v", got)
	}
	if size, ok := got["user_data_size"].(float64); !ok || size < 1000 || size > 16<<10 {
		t.Errorf("user_data_size = %v", got["user_data_size"])
	}
	for _, tt := range []struct{ more, want string }{
		{"source_dir = \"./app\"\nenvironment = { A = \"b\" }", "update"},
		{"source_dir = \"./app\"\nsecurity_group_ids = [\"sg-01234567\"]\ntags = { a = \"b\" }", "update"},
		{"source_dir = \"./app\"\nspot = false\nenvironment = { A = \"a\" }", "update"},
		{"source_dir = \"./other\"\nenvironment = { A = \"a\" }", "delete,create"},
		{"source_dir = \"./app\"\ninstance_type = \"t3.small\"", "delete,create"},
		{"source_dir = \"./app\"\nimage_id = \"ami-0fedcba9876543210\"", "delete,create"},
		{"source_dir = \"./app\"\ninstance_profile = \"app\"", "delete,create"},
		{"source_dir = \"./app\"\nuser_data = \"#!/bin/sh\"", "delete,create"},
		{"source_dir = \"./app\"\nroot_volume = { size = 30 }", "delete,create"},
	} {
		w.configure(config(tt.more))
		if planned := fmt.Sprint(w.planned()[storeVM]); planned != tt.want {
			t.Errorf("%s: planned %q, want %q", tt.more, planned, tt.want)
		}
	}

	// An instance keeps the user data that it booted with, whatever a later provider's are.
	state := readText(t, filepath.Join(w.dir, "terraform.tfstate"))
	measured := fmt.Sprintf("\"user_data_size\": %v", got["user_data_size"])
	if !strings.Contains(state, measured) {
		t.Fatalf("no %s in the state", measured)
	}
	w.write("terraform.tfstate", strings.Replace(state, measured, "\"user_data_size\": 2000", 1))
	w.configure(config("source_dir = \"./app\"\nenvironment = { A = \"a\" }"))
	w.emptyPlan()

	// One that comes with the apply may be another image.
	image := func(id string) string {
		return fmt.Sprintf("resource \"terraform_data\" \"image\" { input = %q }\n", id) + config("source_dir = \"./app\"\nimage_id = terraform_data.image.output")
	}
	w.configure(image("ami-0123456789abcdef0"))
	w.apply()
	w.emptyPlan()
	w.configure(image("ami-0fedcba9876543210"))
	if planned := w.planned()[storeVM]; planned != "delete,create" {
		t.Errorf("an image that is not known yet: planned %q", planned)
	}
}
