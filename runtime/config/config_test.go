// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func valid() Node {
	return Node{Network: "shop", Kind: KindVM, Slot: "store", Argv: []string{"redis-server"}, SecretRef: "file:/s", SeedEndpoints: []string{"10.0.0.1:7717"}}
}

func TestDefaults(t *testing.T) {
	n, err := New(valid())
	if err != nil {
		t.Fatal(err)
	}
	if n.Name != "store" || n.Service != "store" || n.Restart != RestartNo || n.Port != DefaultPort || n.Reach != ReachAny || n.CIDR != "" || n.DeadlineMarginMS != 5000 {
		t.Errorf("defaults of a VM node: %+v", n)
	}
	seed, err := New(Node{Network: "shop", Kind: KindSeed, Slot: "seed-0", SecretRef: "file:/s"})
	if err != nil || seed.CIDR != DefaultCIDR {
		t.Errorf("defaults of a seed: %+v, %v", seed, err)
	}
}

func TestDocumentSurvivesTheTrip(t *testing.T) {
	n := valid()
	n.WaitFor = map[string]int{"logic": 2, WaitNodes: 3}
	n.Publish = []Publish{{Port: 80, HostPort: 8080}}
	n.Env = map[string]string{"A": "b"}
	n.Transports = []string{TransportDirect, TransportRelay}
	n, err := New(n)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "node.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Load(path)
	if err != nil || !reflect.DeepEqual(n, again) {
		t.Errorf("%+v came back as %+v, %v", n, again, err)
	}
}

func TestVersions(t *testing.T) {
	for doc, want := range map[string]string{
		`{}`:                       "version none is not supported (this build reads version 1)",
		`{"version":2}`:            "version 2 is not supported",
		`{"version":"1"}`:          "not JSON",
		`nonsense`:                 "not JSON",
		`{"version":1}`:            "the name is empty",
		`{"version":1,"port":"x"}`: "port",
	} {
		if _, err := Parse([]byte(doc)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v, want %q", doc, err, want)
		}
	}
	doc := `{"version":1,"network":"shop","kind":"vm","slot":"a","argv":["x"],"secret_ref":"file:/s","seed_endpoints":["s:1"],"of_a_later_release":true}`
	if _, err := Parse([]byte(doc)); err != nil {
		t.Errorf("an unknown field is refused: %v", err)
	}
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	for want, change := range map[string]func(*Node){
		"argv: no command to run":       func(n *Node) { n.Argv = nil },
		"seed_endpoints: none given":    func(n *Node) { n.SeedEndpoints = nil },
		`kind "pod"`:                    func(n *Node) { n.Kind = "pod" },
		`secret_ref ""`:                 func(n *Node) { n.SecretRef = "" },
		`restart "maybe"`:               func(n *Node) { n.Restart = "maybe" },
		`transport "tor": want`:         func(n *Node) { n.Transports = []string{"direct", "tor"} },
		`reach "far"`:                   func(n *Node) { n.Reach = "far" },
		"port 70000":                    func(n *Node) { n.Port = 70000 },
		`underlay_address "::1"`:        func(n *Node) { n.UnderlayAddress = "::1" },
		"wait_for: logic = 0":           func(n *Node) { n.WaitFor = map[string]int{"logic": 0} },
		`wait_for: name "Logic"`:        func(n *Node) { n.WaitFor = map[string]int{"Logic": 1} },
		"publish 0 to host port 80":     func(n *Node) { n.Publish = []Publish{{Port: 0, HostPort: 80}} },
		`slot: name "a_b"`:              func(n *Node) { n.Slot = "a_b" },
		`name "node-7": node-<number>`:  func(n *Node) { n.Service = "node-7" },
		`name "localhost" is reserved`:  func(n *Node) { n.Slot = "localhost" },
		`name "nodes" is reserved`:      func(n *Node) { n.Service = WaitNodes },
		`cidr "10.0.0.1/16"`:            func(n *Node) { n.Kind, n.CIDR = KindSeed, "10.0.0.1/16" },
		`cidr "10.0.0.0/30"`:            func(n *Node) { n.Kind, n.CIDR = KindSeed, "10.0.0.0/30" },
		`succeeds "launch one": want`:   func(n *Node) { n.Kind, n.Succeeds = KindFunction, "launch one" },
		`succeeds "0123456789ab"`:       func(n *Node) { n.Succeeds = "0123456789ab" }, // it is a VM
		`secret_ref "ssm:x": want ssm`:  func(n *Node) { n.SecretRef = "ssm:x" },
		`secret_ref "ssm:/a": want ssm`: func(n *Node) { n.SecretRef = "ssm:/a" },
		`secret_ref "ssm:r/": want ssm`: func(n *Node) { n.SecretRef = "ssm:r/" },
		`"ssm:r/a b": want ssm:REGION`:  func(n *Node) { n.SecretRef = "ssm:r/a b" },
		`invoke "lambda:": want`:        func(n *Node) { n.Invoke = "lambda:" },
		`invoke "lambda:r": want`:       func(n *Node) { n.Invoke = "lambda:r" },
		`invoke "lambda:r/a/b": want`:   func(n *Node) { n.Invoke = "lambda:r/a/b" },
		`public_address "here": want`:   func(n *Node) { n.PublicAddress = "here" },
		`public_address "0.0.0.0": w`:   func(n *Node) { n.PublicAddress = "0.0.0.0" },
		`public_address: a function`:    func(n *Node) { n.Kind, n.PublicAddress = KindFunction, "192.0.2.1" },
		`metrics "here": want`:          func(n *Node) { n.Metrics = "here" },
		`metrics "unix:x": want`:        func(n *Node) { n.Metrics = "unix:x" },
	} {
		n := valid()
		change(&n)
		if _, err := New(n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestPlacesOnAWS(t *testing.T) {
	n := valid()
	n.SecretRef, n.Invoke, n.PublicAddress = "ssm:eu-west-1/boxer/shop/secret", "lambda:eu-west-1/boxer-shop-", PublicEC2
	n, err := New(n)
	if err != nil {
		t.Fatal(err)
	}
	region, name, ok := n.SecretParameter()
	if region != "eu-west-1" || name != "/boxer/shop/secret" || !ok {
		t.Errorf("secret: %q, %q, %v", region, name, ok)
	}
	region, prefix, ok := n.InvokeLambda()
	if region != "eu-west-1" || prefix != "boxer-shop-" || !ok {
		t.Errorf("invoke: %q, %q, %v", region, prefix, ok)
	}
	if _, err := n.Secret(); err == nil || !strings.Contains(err.Error(), "is no file of this machine") {
		t.Errorf("read as a file: %v", err)
	}
	n.SecretRef, n.Invoke = "file:/s", "unix:/s"
	_, _, secret := n.SecretParameter()
	_, _, invoke := n.InvokeLambda()
	if secret || invoke {
		t.Error("files are taken for places on AWS")
	}
}

func TestSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	n := Node{SecretRef: "file:" + path}
	if _, err := n.Secret(); err == nil {
		t.Error("an absent file gives a secret")
	}
	for _, tt := range []struct {
		content string
		mode    os.FileMode
		want    string
	}{
		{"0123456789abcdef\n", 0o600, ""},
		{"0123456789abcdef\n", 0o640, "lets others read it; run chmod 600"},
		{"short\n", 0o600, "5 bytes are too few"},
	} {
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		secret, err := n.Secret()
		switch {
		case tt.want == "" && (err != nil || string(secret) != "0123456789abcdef"):
			t.Errorf("%q: %q, %v", tt.content, secret, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%q, mode %o: %v", tt.content, tt.mode, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	data, _ := json.Marshal(valid())
	f.Add(data)
	f.Add([]byte(`{"version":1,"publish":[{"port":-1}],"wait_for":{"":1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := Parse(data)
		if err != nil {
			return
		}
		if again, err := New(n); err != nil || again.Slot != n.Slot {
			t.Errorf("%+v is valid once: %v", n, err)
		}
	})
}
