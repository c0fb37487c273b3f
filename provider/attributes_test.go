// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"

	"github.com/boxer-overlay/boxer/runtime/config"
)

// What a changed attribute makes terraform plan.
const (
	inPlace  = "update"
	replaced = "delete,create"
	unseen   = "no-op"
	computed = "computed" // users cannot write it
)

// attributeCase is how one attribute of a resource behaves. Every attribute of
// every schema has one: TestEveryAttribute fails for what has none.
type attributeCase struct {
	before, after string // what the resource says of it
	action        string // what the change plans
	restarts      bool   // whether it starts the guest again
	// invalid are the goldens of TestInvalidInput that refuse a value of it; a word
	// that begins with "any" says why there is none.
	invalid string
	// drift changes it where it runs; what terraform plans then. None: it is known
	// to terraform only.
	drift        func(*nodeSpec)
	keptDrift    func(*policy)
	networkDrift func(*networkStatus)
	drifted      string
	// imports says that the platform cannot tell what was written, and that this
	// is what importing it plans.
	imports string
}

// nodeCases are the attributes that both kinds of nodes have. DIR is the
// directory of the configuration.
func nodeCases() map[string]attributeCase {
	return map[string]attributeCase{
		"id":                {action: computed},
		"node_ids":          {action: computed},
		"overlay_addresses": {action: computed},
		"slots":             {action: computed},
		"code_sha256":       {action: computed},
		"tags_all":          {action: computed},
		"network_id":        {before: `network_id = "base"`, after: `network_id = "other"`, action: replaced, invalid: "network id"},
		"name":              {before: `name = "name"`, after: `name = "new-name"`, action: replaced, invalid: "reserved name"},
		"service": {before: `service = "a"`, after: `service = "b"`, action: inPlace, restarts: true, invalid: "service",
			drift: func(s *nodeSpec) { s.Service = "c" }},
		"command": {before: `command = ["a"]`, after: `command = ["a", "b"]`, action: inPlace, restarts: true, invalid: "command empty, command nameless",
			drift: func(s *nodeSpec) { s.Command = []string{"c"} }},
		"environment": {before: `environment = { A = "1" }`, after: `environment = { A = "2" }`, action: inPlace, restarts: true,
			invalid: "environment name, environment reserved", drift: func(s *nodeSpec) { s.Environment = map[string]string{"A": "3"} }},
		"working_dir": {after: `working_dir = "/srv"`, action: inPlace, restarts: true, invalid: "working dir",
			drift: func(s *nodeSpec) { s.WorkingDir = "/tmp" }},
		"source_dir": {before: `source_dir = "DIR/one"`, after: `source_dir = "DIR/two"`, action: inPlace, restarts: true,
			invalid: "source missing, source is file, source and package", drift: func(s *nodeSpec) { s.CodeSHA256 = "another" }, imports: inPlace},
		"package": {before: `package = "DIR/one.zip"`, after: `package = "DIR/two.zip"`, action: inPlace, restarts: true,
			invalid: "package missing, package is no zip", drift: func(s *nodeSpec) { s.CodeSHA256 = "another" }, imports: inPlace},
		"files": {before: `files = { "/etc/a" = "1" }`, after: `files = { "/etc/a" = "2" }`, action: inPlace, restarts: true,
			invalid: "files relative, files own, files below, files large", drift: func(s *nodeSpec) { s.Files = nil }},
		"remap": {after: `remap = { "/a" = "/b" }`, action: inPlace, restarts: true, invalid: "remap",
			drift: func(s *nodeSpec) { s.Remap = map[string]string{"/a": "/c"} }},
		"wait_for": {before: `wait_for = { a = 1 }`, after: `wait_for = { a = 2 }`, action: inPlace, restarts: true, invalid: "wait for zero, wait for name",
			drift: func(s *nodeSpec) { s.WaitFor = map[string]int{"a": 3} }},
		"wait_for_ready": {before: `wait_for_ready = false`, after: `wait_for_ready = true`, action: inPlace, invalid: "any boolean is valid"},
		"restart": {before: `restart = "always"`, action: inPlace, restarts: true, invalid: "restart",
			drift: func(s *nodeSpec) { s.Restart = "on-failure" }},
		"transports": {before: `transports = ["native"]`, after: `transports = ["relay", "native"]`, action: inPlace, restarts: true, invalid: "transport",
			drift: func(s *nodeSpec) { s.Transports = []string{"direct"} }},
		"tags": {before: `tags = { a = "1" }`, after: `tags = { a = "2" }`, action: inPlace, invalid: "tag",
			drift: func(s *nodeSpec) { s.Tags = map[string]string{"b": "3"} }},
		"timeouts":        {before: `timeouts = {}`, action: inPlace, invalid: "timeouts", imports: unseen},
		"timeouts.create": {before: `timeouts = { create = "1m" }`, after: `timeouts = { create = "2m" }`, action: inPlace, invalid: "timeouts", imports: inPlace},
		"timeouts.update": {before: `timeouts = { update = "1m" }`, after: `timeouts = { update = "2m" }`, action: inPlace, invalid: "timeouts all", imports: inPlace},
		"timeouts.delete": {before: `timeouts = { delete = "1m" }`, after: `timeouts = { delete = "2m" }`, action: inPlace, invalid: "timeouts all", imports: inPlace},
	}
}

func vmCases() map[string]attributeCase {
	cases := nodeCases()
	published := func(p config.Publish) func(*nodeSpec) {
		return func(s *nodeSpec) { s.Publish = []config.Publish{p} }
	}
	maps.Copy(cases, onAWSCases("image_id instance_type architecture subnet_id spot root_volume root_volume.size root_volume.type root_volume.iops "+
		"root_volume.encrypted key_name instance_profile security_group_ids user_data", "instance_id", "private_ip", "public_ip", "user_data_size"))
	maps.Copy(cases, map[string]attributeCase{
		"user": {after: `user = "www-data"`, action: inPlace, restarts: true, invalid: "user", drift: func(s *nodeSpec) { s.User = "mail" }},
		"publish": {after: `publish = [{ port = 80, host_port = 8080 }]`, action: inPlace, restarts: true, invalid: "publish twice",
			drift: func(s *nodeSpec) { s.Publish = nil }},
		"publish.port": {before: `publish = [{ port = 80, host_port = 8080 }]`, after: `publish = [{ port = 81, host_port = 8080 }]`,
			action: inPlace, restarts: true, invalid: "publish port",
			drift: published(config.Publish{Port: 82, HostPort: 8080, HostAddress: "127.0.0.1"})},
		"publish.host_port": {before: `publish = [{ port = 80, host_port = 8080 }]`, after: `publish = [{ port = 80, host_port = 8081 }]`,
			action: inPlace, restarts: true, invalid: "publish host port",
			drift: published(config.Publish{Port: 80, HostPort: 8082, HostAddress: "127.0.0.1"})},
		"publish.host_address": {before: `publish = [{ port = 80, host_port = 8080 }]`, after: `publish = [{ port = 80, host_port = 8080, host_address = "0.0.0.0" }]`,
			action: inPlace, restarts: true, invalid: "publish address",
			drift: published(config.Publish{Port: 80, HostPort: 8080, HostAddress: "::1"})},
		"publish.cidrs": {before: `publish = [{ port = 80, host_port = 8080, cidrs = ["10.0.0.0/8"] }]`, after: `publish = [{ port = 80, host_port = 8080, cidrs = ["10.0.0.0/9"] }]`,
			action: inPlace, restarts: true, invalid: "publish cidr",
			drift: published(config.Publish{Port: 80, HostPort: 8080, HostAddress: "127.0.0.1", CIDRs: []string{"10.0.0.0/10"}})},
	})
	return cases
}

const refused = "refused" // at plan, whatever it says

// onAWSCases are attributes that only AWS has: TestOnlyOnAWS, TestRefusedOnAWS and
// TestVMNodeOnAWS see to them.
func onAWSCases(written string, told ...string) map[string]attributeCase {
	cases := map[string]attributeCase{}
	for _, name := range strings.Fields(written) {
		cases[name] = attributeCase{action: refused, invalid: "any on this platform"}
	}
	for _, name := range told {
		cases[name] = attributeCase{action: computed}
	}
	return cases
}

func functionCases() map[string]attributeCase {
	cases := nodeCases()
	maps.Copy(cases, onAWSCases("architecture image_uri subnet_ids security_group_ids role_arn reserved_concurrency", "function_arn", "log_group_name"))
	for _, part := range []string{"", ".port", ".host_port", ".host_address", ".cidrs"} {
		cases["publish"+part] = attributeCase{action: refused, invalid: "publish a function"}
	}
	maps.Copy(cases, map[string]attributeCase{
		"user":          {action: refused, invalid: "user of a function"},
		"running_count": {action: computed},
		"desired_count": {before: `desired_count = 1`, after: `desired_count = 3`, action: inPlace, invalid: "desired count, number and range",
			keptDrift: func(p *policy) { p.Count = 2 }},
		"min_count": {after: `min_count = 2`, action: inPlace, invalid: "min count, number and range", keptDrift: func(p *policy) { p.Min = 3 }},
		"max_count": {before: `max_count = 4`, after: `max_count = 5`, action: inPlace, invalid: "max count, empty range", keptDrift: func(p *policy) { p.Max = 6 }},
		"budget":    {before: `budget = { gb_seconds_per_day = 5 }`, action: inPlace, invalid: "budget", keptDrift: func(p *policy) { p.Budget = 6 }},
		"budget.gb_seconds_per_day": {before: `budget = { gb_seconds_per_day = 5 }`, after: `budget = { gb_seconds_per_day = 0.1 }`, action: inPlace,
			invalid: "budget", keptDrift: func(p *policy) { p.Budget = 6 }},
		"scale": {after: `scale = { metric = "cpu", target = 0.5 }`, action: inPlace, invalid: "scale without range", keptDrift: func(p *policy) { p.Scale = nil }},
		"scale.metric": {before: `scale = { metric = "cpu", target = 2 }`, after: `scale = { metric = "connections", target = 2 }`, action: inPlace,
			invalid: "scale metric", keptDrift: func(p *policy) { p.Scale.Metric = "accept_queue" }},
		"scale.target": {before: `scale = { metric = "cpu", target = 2 }`, after: `scale = { metric = "cpu", target = 0.1 }`, action: inPlace,
			invalid: "scale target", keptDrift: func(p *policy) { p.Scale.Target = 3 }},
		"scale.cooldown": {before: `scale = { metric = "cpu", target = 2 }`, after: `scale = { metric = "cpu", target = 2, cooldown = 5 }`, action: inPlace,
			invalid: "scale cooldown", keptDrift: func(p *policy) { p.Scale.CooldownS = 6 }},
		"standby_for": {before: `standby_for = "store"`, after: `standby_for = "front"`, action: inPlace, invalid: "standby name, standby with number",
			keptDrift: func(p *policy) { p.StandbyFor = "other" }},
		"memory_size": {before: `memory_size = 256`, action: inPlace, restarts: true, invalid: "memory size",
			drift: func(s *nodeSpec) { s.MemoryMB = 300 }},
		"ephemeral_storage": {after: `ephemeral_storage = 600`, action: inPlace, restarts: true, invalid: "ephemeral storage",
			drift: func(s *nodeSpec) { s.EphemeralMB = 700 }},
		"timeout": {after: `timeout = 60`, action: inPlace, restarts: true, invalid: "timeout",
			drift: func(s *nodeSpec) { s.TimeoutS = 61 }},
	})
	return cases
}

func networkCases() map[string]attributeCase {
	cases := onAWSCases("vpc_id subnet_ids role_path permissions_boundary name_prefix log_retention_days seed.instance_type seed.subnet_id seed.ingress_cidrs")
	maps.Copy(cases, map[string]attributeCase{
		"id":             {action: computed},
		"seed_endpoints": {action: computed},
		"secret_ref":     {action: computed},
		"layer_arns":     {action: computed},
		"tags_all":       {action: computed},
		"name":           {before: `name = "name"`, after: `name = "new-name"`, action: replaced, invalid: "network name"},
		"cidr": {after: `cidr = "100.90.0.0/16"`, action: replaced, invalid: "network cidr",
			networkDrift: func(s *networkStatus) { s.CIDR = "100.91.0.0/16" }, drifted: replaced},
		"port": {after: `port = 7718`, action: replaced, invalid: "network port",
			networkDrift: func(s *networkStatus) { s.Port = 7719 }, drifted: replaced},
		"secret_wo": {before: "secret_wo = \"0123456789abcdef\"\nsecret_wo_version = 1", after: "secret_wo = \"another-secret-of-it\"\nsecret_wo_version = 1",
			action: unseen, invalid: "secret short, secret no version"},
		"secret_wo_version": {before: "secret_wo = \"0123456789abcdef\"\nsecret_wo_version = 1", after: "secret_wo = \"0123456789abcdef\"\nsecret_wo_version = 2",
			action: replaced, invalid: "version no secret", networkDrift: func(s *networkStatus) { s.SecretVersion = 3 }, drifted: replaced},
		"runtime_version": {after: `runtime_version = "test"`, action: unseen, invalid: "runtime version"},
		"seed":            {after: `seed = { count = 3 }`, action: replaced, invalid: "network two seeds"},
		"seed.count": {before: `seed = { count = 3 }`, after: `seed = { count = 1 }`, action: replaced, invalid: "network no seeds",
			networkDrift: func(s *networkStatus) {
				s.SeedEndpoints = s.SeedEndpoints[:1:1]
				s.SeedEndpoints = append(s.SeedEndpoints, "b:1", "c:1")
			}, drifted: replaced},
		"tags": {before: `tags = { a = "1" }`, after: `tags = { a = "2" }`, action: inPlace, invalid: "tag",
			networkDrift: func(s *networkStatus) { s.Tags = map[string]string{"b": "3"} }, drifted: inPlace},
		"timeouts":        {before: `timeouts = {}`, action: inPlace, invalid: "timeouts", imports: unseen},
		"timeouts.create": {before: `timeouts = { create = "1m" }`, after: `timeouts = { create = "2m" }`, action: inPlace, invalid: "timeouts", imports: inPlace},
		"timeouts.update": {before: `timeouts = { update = "1m" }`, after: `timeouts = { update = "2m" }`, action: inPlace, invalid: "timeouts all", imports: inPlace},
		"timeouts.delete": {before: `timeouts = { delete = "1m" }`, after: `timeouts = { delete = "2m" }`, action: inPlace, invalid: "timeouts all", imports: inPlace},
	})
	return cases
}

// subject is a kind of resource, of which there is one for each attribute.
type subject struct {
	kind     string // boxer_vm_node
	short    string // what names of this kind begin with
	required []string
	make     func() resource.Resource
	cases    map[string]attributeCase
}

func subjects() []subject {
	return []subject{
		{"boxer_network", "net", []string{`name = "NAME"`}, newNetworkResource, networkCases()},
		{"boxer_vm_node", "vm", []string{`network_id = "base"`, `name = "NAME"`, `command = ["x"]`}, newVMNodeResource, vmCases()},
		{"boxer_function_node", "fn", []string{`network_id = "base"`, `name = "NAME"`, `command = ["x"]`}, newFunctionNodeResource, functionCases()},
	}
}

// written calls use for each attribute that users can write.
func (s subject) written(use func(attribute string, c attributeCase)) {
	for _, attribute := range slices.Sorted(maps.Keys(s.cases)) {
		if c := s.cases[attribute]; slices.Contains([]string{inPlace, replaced, unseen}, c.action) {
			use(attribute, c)
		}
	}
}

func (s subject) address(attribute string) string {
	return s.kind + "." + strings.ReplaceAll(attribute, ".", "_")
}

// name of the resource that is there for an attribute; of the second state it
// may be another.
func (s subject) name(attribute string) string {
	return s.short + "-" + strings.NewReplacer(".", "-", "_", "-").Replace(attribute)
}

// resource is the one for an attribute, of which it says line.
func (s subject) resource(attribute, line string) string {
	root, _, _ := strings.Cut(attribute, ".")
	lines := []string{line}
	for _, required := range s.required {
		if !strings.HasPrefix(required, root+" ") {
			lines = append(lines, required)
		}
	}
	text := strings.ReplaceAll(strings.Join(lines, "\n  "), "NAME", s.name(attribute))
	return fmt.Sprintf("resource %q %q {\n  %s\n}\n", s.kind, strings.TrimPrefix(s.address(attribute), s.kind+"."), text)
}

// schemaPaths are the attributes of a schema, those of nested ones as a.b.
func schemaPaths(t *testing.T, prefix string, attributes map[string]schema.Attribute, paths map[string]schema.Attribute) {
	t.Helper()
	for name, attribute := range attributes {
		paths[prefix+name] = attribute
		switch nested := attribute.(type) {
		case schema.ListNestedAttribute:
			schemaPaths(t, prefix+name+".", nested.NestedObject.Attributes, paths)
		case schema.SingleNestedAttribute:
			schemaPaths(t, prefix+name+".", nested.Attributes, paths)
		case schema.MapNestedAttribute, schema.SetNestedAttribute:
			t.Errorf("%s%s: this test does not look into a %T", prefix, name, nested)
		}
	}
}

// TestEveryAttributeHasACase: whoever adds an attribute says here what a change,
// drift, import and a wrong value of it do, and the tests below see to it.
func TestEveryAttributeHasACase(t *testing.T) {
	for _, s := range subjects() {
		var resp resource.SchemaResponse
		s.make().Schema(t.Context(), resource.SchemaRequest{}, &resp)
		paths := map[string]schema.Attribute{}
		schemaPaths(t, "", resp.Schema.Attributes, paths)
		for path, attribute := range paths {
			c, ok := s.cases[path]
			if !ok {
				t.Errorf("%s.%s has no case", s.kind, path)
				continue
			}
			if only := !attribute.IsOptional() && !attribute.IsRequired(); only != (c.action == computed) {
				t.Errorf("%s.%s is %s, and the schema says otherwise", s.kind, path, c.action)
			}
			if c.action != computed && !strings.HasPrefix(c.invalid, "any") {
				refusedBy(t, s.kind+"."+path, c.invalid)
			}
		}
		for path := range s.cases {
			if _, ok := paths[path]; !ok {
				t.Errorf("%s has no attribute %s", s.kind, path)
			}
		}
	}
}

// refusedBy: each of the goldens is of a configuration that says something of the
// attribute.
func refusedBy(t *testing.T, attribute, goldens string) {
	t.Helper()
	cases, last := invalidInput(), attribute[strings.LastIndexByte(attribute, '.')+1:]
	for golden := range strings.SplitSeq(goldens, ", ") {
		if !strings.Contains(cases[golden], last+" = ") && !strings.Contains(cases[golden], last+"  =") {
			t.Errorf("%s: %q is no invalid value of it", attribute, golden)
		}
	}
}

// TestEveryAttribute changes every attribute of every resource, each of a resource
// of its own: the plan is as its case says, a replacement says why, a guest is
// started again only when needed, what somebody else changed is drift, and an
// import finds what is there.
func TestEveryAttribute(t *testing.T) {
	f := newFakePlatform()
	f.networks["base"], f.networks["other"] = networkStatus{}, networkStatus{}
	w := newWorkspace(t, withPlatform(f))
	for name, content := range map[string]string{"one": "1", "two": "2"} {
		w.write(name+"/file", content)
		pack(t, filepath.Join(w.dir, name+".zip"), "file", content)
	}
	configOf := func(pick func(attributeCase) string) string {
		var text strings.Builder
		for _, s := range subjects() {
			s.written(func(attribute string, c attributeCase) { text.WriteString(s.resource(attribute, pick(c))) })
		}
		return strings.ReplaceAll(text.String(), "DIR", w.dir)
	}
	w.configure(configOf(func(c attributeCase) string { return c.before }))
	w.apply()
	w.emptyPlan()
	f.called()
	f.change(func() { clear(f.waited) })

	after := configOf(func(c attributeCase) string { return c.after })
	w.configure(after)
	reasons := diagnosticsIn(w.must("plan", "-input=false", "-json", "-out=plan.bin"))
	plannedAsCase(t, w.actions(), func(c attributeCase) string { return c.action })
	w.must("apply", "-input=false", "-no-color", "plan.bin")
	w.emptyPlan()
	w.golden("replace/every", reasons, nil)
	replacedAndRestarted(t, f, reasons)

	importEvery(t, f, w, after)
}

func plannedAsCase(t *testing.T, planned map[string]string, want func(attributeCase) string) {
	t.Helper()
	for _, s := range subjects() {
		s.written(func(attribute string, c attributeCase) {
			if got := planned[s.address(attribute)]; got != want(c) {
				t.Errorf("%s.%s: planned %q, want %q", s.kind, attribute, got, want(c))
			}
		})
	}
}

// replacedAndRestarted: each replacement says why, and the guests that were
// started again are those whose case says so.
func replacedAndRestarted(t *testing.T, f *fakePlatform, reasons []diagnostic) {
	t.Helper()
	calls := f.called()
	for _, s := range subjects() {
		s.written(func(attribute string, c attributeCase) {
			name := s.name(attribute)
			said := slices.ContainsFunc(reasons, func(d diagnostic) bool {
				return d.Address == s.address(attribute) && strings.Contains(d.Detail, "It cannot be changed in place: ")
			})
			if said != (c.action == replaced) {
				t.Errorf("%s.%s: said why it is replaced: %v", s.kind, attribute, said)
			}
			_, restarted := f.waited[name]
			if s.short == "fn" {
				restarted = slices.Contains(calls, "stop "+name+"-0") && slices.Contains(calls, "start "+name+"-0")
			}
			if s.short != "net" && c.action == inPlace && restarted != c.restarts {
				t.Errorf("%s.%s: the guest was started again: %v", s.kind, attribute, restarted)
			}
		})
	}
}

// drift lets somebody else change everything.
func drift(f *fakePlatform) {
	f.change(func() {
		for _, s := range subjects() {
			s.written(func(attribute string, c attributeCase) {
				name := s.name(attribute)
				switch {
				case c.networkDrift != nil:
					status := f.networks[name]
					c.networkDrift(&status)
					f.networks[name] = status
				case c.drift != nil && s.short == "vm":
					status := f.vms[name]
					c.drift(&status.Spec)
					f.vms[name] = status
				case c.drift != nil:
					c.drift(&f.functions[name].spec)
				case c.keptDrift != nil:
					c.keptDrift(f.functions[name].kept)
				}
			})
		}
	})
}

// importEvery imports all that is there into an empty state. What is then
// changed touches no guest, and what somebody else changes is seen.
func importEvery(t *testing.T, f *fakePlatform, made *workspace, config string) {
	t.Helper()
	w := newWorkspace(t, withPlatform(f))
	known := made.state()
	var blocks strings.Builder
	for _, s := range subjects() {
		s.written(func(attribute string, c attributeCase) {
			fmt.Fprintf(&blocks, "import {\n  to = %s\n  id = %q\n}\n", s.address(attribute), known[s.address(attribute)]["id"])
		})
	}
	w.configure(config + blocks.String())
	f.called()
	f.change(func() { clear(f.waited) })
	plannedAsCase(t, w.planned(), func(c attributeCase) string {
		if c.imports != "" {
			return c.imports
		}
		return unseen
	})
	w.must("apply", "-input=false", "-no-color", "plan.bin")
	w.emptyPlan()
	if calls := f.called(); len(f.waited) > 0 || slices.ContainsFunc(calls, func(c string) bool { return !strings.HasPrefix(c, "update ") }) {
		t.Errorf("importing touched guests: %q, waited for %v", calls, f.waited)
	}
	drift(f)
	plannedAsCase(t, w.planned(), func(c attributeCase) string {
		switch {
		case c.drift != nil || c.keptDrift != nil:
			return inPlace
		case c.networkDrift != nil:
			return c.drifted
		}
		return unseen
	})
}
