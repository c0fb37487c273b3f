// SPDX-License-Identifier: Apache-2.0

package provider

import "testing"

const vmStart = "resource \"boxer_vm_node\" \"store\" {\n  network_id = \"shop\"\n  name = \"store\"\n"

// invalidInput are configurations of one resource each, with something wrong.
func invalidInput() map[string]string {
	return map[string]string{
		"network name": `resource "boxer_network" "shop" { name = "My Shop" }`,
		"network cidr": `resource "boxer_network" "shop" {
  name = "shop"
  cidr = "100.80.0.1/16"
}`,
		"network port": `resource "boxer_network" "shop" {
  name = "shop"
  port = 70000
}`,
		"network two seeds":     "resource \"boxer_network\" \"shop\" {\n  name = \"shop\"\n  seed = { count = 2 }\n}",
		"network no seeds":      "resource \"boxer_network\" \"shop\" {\n  name = \"shop\"\n  seed = { count = 0 }\n}",
		"reserved name":         "resource \"boxer_vm_node\" \"store\" {\n  network_id = \"shop\"\n  name = \"node-7\"\n  command = [\"x\"]\n}",
		"network id":            "resource \"boxer_vm_node\" \"store\" {\n  network_id = \"My Shop\"\n  name = \"store\"\n  command = [\"x\"]\n}",
		"service":               vmStart + "  command = [\"x\"]\n  service = \"data base\"\n}",
		"publish host port":     vmStart + "  command = [\"x\"]\n  publish = [{ port = 80, host_port = 65536 }]\n}",
		"command empty":         vmStart + "  command = []\n}",
		"command nameless":      vmStart + "  command = [\"\", \"x\"]\n}",
		"source missing":        vmStart + "  command = [\"x\"]\n  source_dir = \"./nowhere\"\n}",
		"source is file":        vmStart + "  command = [\"x\"]\n  source_dir = \"./main.tf\"\n}",
		"wait for zero":         vmStart + "  command = [\"x\"]\n  wait_for = { logic = 0 }\n}",
		"wait for name":         vmStart + "  command = [\"x\"]\n  wait_for = { Logic = 1 }\n}",
		"transport":             vmStart + "  command = [\"x\"]\n  transports = [\"direct\", \"tor\"]\n}",
		"publish twice":         vmStart + "  command = [\"x\"]\n  publish = [\n    { port = 80, host_port = 8080 },\n    { port = 81, host_port = 8080, host_address = \"127.0.0.1\" },\n  ]\n}",
		"publish port":          vmStart + "  command = [\"x\"]\n  publish = [{ port = 0, host_port = 8080 }]\n}",
		"publish address":       vmStart + "  command = [\"x\"]\n  publish = [{ port = 80, host_port = 8080, host_address = \"localhost\" }]\n}",
		"desired count":         functionWith("desired_count = -1"),
		"number and range":      functionWith("desired_count = 2\n  min_count = 1"),
		"min count":             functionWith("min_count = 1001"),
		"max count":             functionWith("max_count = 0"),
		"empty range":           functionWith("min_count = 3\n  max_count = 2"),
		"budget":                functionWith("budget = { gb_seconds_per_day = 0 }"),
		"scale without range":   functionWith("desired_count = 2\n  scale = { metric = \"cpu\", target = 0.5 }"),
		"scale metric":          functionWith("scale = { metric = \"memory\", target = 0.5 }"),
		"scale target":          functionWith("scale = { metric = \"cpu\", target = -1 }"),
		"scale cooldown":        functionWith("scale = { metric = \"cpu\", target = 1, cooldown = 0 }"),
		"standby name":          functionWith("standby_for = \"Store 1\""),
		"standby with number":   functionWith("standby_for = \"store\"\n  max_count = 2"),
		"slot name of the most": functionWith("max_count = 11", "a123456789b123456789c123456789d123456789e123456789f123456789g"),
		"memory size":           functionWith("memory_size = 64"),
		"ephemeral storage":     functionWith("ephemeral_storage = 511"),
		"timeout":               functionWith("timeout = 901"),
		"environment name":      vmStart + "  command = [\"x\"]\n  environment = { \"A=B\" = \"c\" }\n}",
		"environment reserved":  vmStart + "  command = [\"x\"]\n  environment = { BOXER_DIR = \"/\" }\n}",
		"working dir":           vmStart + "  command = [\"x\"]\n  working_dir = \"srv\"\n}",
		"user":                  vmStart + "  command = [\"x\"]\n  user = \"www data\"\n}",
		"user of a function":    functionWith("user = \"www-data\""),
		"source and package":    vmStart + "  command = [\"x\"]\n  source_dir = \"./.\"\n  package = \"./app.zip\"\n}",
		"package missing":       vmStart + "  command = [\"x\"]\n  package = \"./nowhere.zip\"\n}",
		"package is no zip":     vmStart + "  command = [\"x\"]\n  package = \"./main.tf\"\n}",
		"files relative":        vmStart + "  command = [\"x\"]\n  files = { \"etc/a\" = \"\" }\n}",
		"files own":             vmStart + "  command = [\"x\"]\n  files = { \"/proc/a\" = \"\" }\n}",
		"files below":           vmStart + "  command = [\"x\"]\n  files = { \"/srv/a\" = \"\", \"/srv/a/b\" = \"\" }\n}",
		"files large":           vmStart + "  command = [\"x\"]\n  files = { \"/srv/a\" = join(\"\", [for i in range(1024) : format(\"%0300d\", i)]) }\n}",
		"remap":                 vmStart + "  command = [\"x\"]\n  remap = { \"/a\" = \"b\" }\n}",
		"restart":               vmStart + "  command = [\"x\"]\n  restart = \"sometimes\"\n}",
		"publish cidr":          vmStart + "  command = [\"x\"]\n  publish = [{ port = 80, host_port = 8080, cidrs = [\"10.0.0.1/8\"] }]\n}",
		"publish a function":    functionWith("publish = [{ port = 80, host_port = 8080, host_address = \"127.0.0.1\", cidrs = [\"10.0.0.0/8\"] }]"),
		"tag":                   vmStart + "  command = [\"x\"]\n  tags = { \"aws:x\" = \"y\" }\n}",
		"timeouts":              vmStart + "  command = [\"x\"]\n  timeouts = { create = \"soon\" }\n}",
		"timeouts all":          "resource \"boxer_network\" \"shop\" {\n  name = \"shop\"\n  timeouts = { create = \"1\", update = \"0s\", delete = \"\" }\n}",
		"timeouts negative":     functionWith("timeouts = { update = \"-1s\" }"),
		"secret short":          "resource \"boxer_network\" \"shop\" {\n  name = \"shop\"\n  secret_wo = \"short\"\n  secret_wo_version = 1\n}",
		"secret no version":     "resource \"boxer_network\" \"shop\" {\n  name = \"shop\"\n  secret_wo = \"0123456789abcdef\"\n}",
		"version no secret":     "resource \"boxer_network\" \"shop\" {\n  name = \"shop\"\n  secret_wo_version = 1\n}",
		"runtime version":       "resource \"boxer_network\" \"shop\" {\n  name = \"shop\"\n  runtime_version = \"9.9\"\n}",
		"slot name":             functionWith(`service = "logic"`, "a123456789b123456789c123456789d123456789e123456789f123456789g12"),
		"slot is canonical":     functionWith("", "node"),
	}
}

// Every message names the attribute, what is wrong with it and what to write.
func TestInvalidInput(t *testing.T) {
	newWorkspace(t).refuses("invalid", invalidInput())
}

func functionWith(line string, name ...string) string {
	if len(name) == 0 {
		name = []string{"logic"}
	}
	return "resource \"boxer_function_node\" \"logic\" {\n  network_id = \"shop\"\n  name = \"" + name[0] +
		"\"\n  command = [\"x\"]\n  " + line + "\n}"
}

// What the validators must let through: edges of the ranges, and values that
// are not known while planning.
func TestValidInput(t *testing.T) {
	w := newWorkspace(t)
	w.write("app/x", "")
	w.configure(`
variable "port" { type = number }
resource "boxer_function_node" "range" {
  network_id  = boxer_network.shop.id
  name        = "range"
  command     = ["x"]
  min_count   = 0
  max_count   = var.port
  budget      = { gb_seconds_per_day = var.port / 3 }
  scale       = { metric = "connections", target = terraform_data.number.output, cooldown = 86400 }
}
resource "boxer_function_node" "later" {
  network_id    = boxer_network.shop.id
  name          = "later"
  command       = ["x"]
  desired_count = terraform_data.number.output
}
resource "boxer_function_node" "standby" {
  network_id  = boxer_network.shop.id
  name        = "standby"
  command     = ["x"]
  standby_for = terraform_data.later.output
}
resource "terraform_data" "number" { input = 3 }
resource "terraform_data" "later" { input = "app" }
resource "boxer_network" "shop" {
  name = "s"
  cidr = "10.0.0.0/8"
  port = 65535
}
resource "boxer_vm_node" "store" {
  network_id = boxer_network.shop.id
  name       = terraform_data.later.output
  command    = [terraform_data.later.output]
  source_dir = terraform_data.later.output
  wait_for   = { nodes = 1, logic = 3 }
  environment = { A = terraform_data.later.output, "b.c" = "" }
  files       = { "/etc/a" = terraform_data.later.output }
  remap       = { "/a" = "/b" }
  working_dir = "/"
  user        = "33"
  restart     = "always"
  tags        = { later = terraform_data.later.output }
  timeouts    = { create = "90s", update = "1h", delete = "5m" }
  transports = ["native", "direct", "relay"]
  publish = [
    { port = 1, host_port = var.port },
    { port = 1, host_port = 65535 },
    { port = 1, host_port = 65535, host_address = "::1" },
  ]
}
resource "boxer_function_node" "logic" {
  network_id    = boxer_network.shop.id
  name          = "logic"
  source_dir    = "` + w.dir + `/app"
  command       = ["x"]
  wait_for_ready = false
  desired_count = 0
  transports    = []
  memory_size   = 10240
  timeout       = 1
}
`)
	w.must("validate", "-no-color")
	actions := w.planned("-var=port=80")
	for _, address := range []string{"boxer_network.shop", "boxer_vm_node.store", "boxer_function_node.logic", "boxer_function_node.range", "boxer_function_node.later", "boxer_function_node.standby"} {
		if actions[address] != "create" {
			t.Errorf("%s: planned %q, want create", address, actions[address])
		}
	}
}
