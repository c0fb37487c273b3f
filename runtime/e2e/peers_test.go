// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// view is what peers_client.py prints: both ends' idea of one connection.
type view struct {
	Target      string `json:"target"`
	Own         string `json:"own"`
	Resolved    string `json:"resolved"`
	GetSockName string `json:"getsockname"`
	GetPeerName string `json:"getpeername"`
	Port        int    `json:"port"`
	Seen        struct {
		Accept      string `json:"accept"`
		GetPeerName string `json:"getpeername"`
		GetSockName string `json:"getsockname"`
		Port        int    `json:"port"`
	} `json:"seen"`
}

// TestPeers: whatever the transport, both ends see overlay addresses, IPv4
// listeners plain and dual-stack ones mapped.
func TestPeers(t *testing.T) {
	w := newWorld(t)
	task := w.task(t)
	w.network(t, "peers")
	servers := map[string]string{"v4": "4", "v6": "6"}
	for name, family := range servers {
		w.vm(t, "vm-"+name, "--source-dir", task, "--", "python3", "/var/task/peers_server.py", "9000", family)
		w.function(t, "fn-"+name, "--source-dir", task, "--", "python3", "/var/task/peers_server.py", "9000", family)
	}
	all := w.nodes(t)
	// What a client of a kind uses towards a server of a kind.
	transports := map[string]string{
		"vm vm": "native", "function vm": "direct", "vm function": "punch", "function function": "punch",
	}
	for _, kind := range []string{"vm", "function", "client"} {
		t.Run(kind, func(t *testing.T) {
			var targets []string
			for name := range servers {
				for _, family := range []string{"4", "6"} {
					targets = append(targets, "vm-"+name+":9000:"+family, "fn-"+name+":9000:"+family)
				}
			}
			script := "/var/task/peers_client.py"
			args := []string{"run", "--kind", kind}
			if kind == "client" {
				script = filepath.Join(task, "peers_client.py")
			} else {
				args = append(args, "--source-dir", task)
			}
			args = append(args, "--", "sh", "-c", "echo $BOXER_NODE_ID; exec python3 "+script+" "+strings.Join(targets, " "))
			id, lines, _ := strings.Cut(w.must(t, args...), "\n")
			views := strings.Split(strings.TrimSpace(lines), "\n")
			if len(views) != len(targets) {
				t.Fatalf("%d targets, answers: %s", len(targets), lines)
			}
			for _, line := range views {
				var v view
				if err := json.Unmarshal([]byte(line), &v); err != nil {
					t.Fatalf("%v: %s", err, line)
				}
				checkView(t, v, all)
			}
			for _, to := range []string{"vm-v4", "vm-v6", "fn-v4-0", "fn-v6-0"} {
				if transport, ok := transports[kind+" "+map[bool]string{true: "vm", false: "function"}[strings.HasPrefix(to, "vm")]]; ok {
					w.wantPath(t, "node-"+id, to, transport, 2)
				}
			}
		})
	}
}

// checkView compares what both ends saw with what the network says.
func checkView(t *testing.T, v view, all map[string]node) {
	t.Helper()
	host, rest, _ := strings.Cut(v.Target, ":")
	slot := host
	if strings.HasPrefix(slot, "fn-") {
		slot += "-0"
	}
	clientPrefix, serverPrefix := "", ""
	if strings.HasSuffix(rest, ":6") {
		clientPrefix = "::ffff:"
	}
	if strings.HasSuffix(host, "v6") {
		serverPrefix = "::ffff:"
	}
	server := all[slot].Overlay
	for _, check := range []struct{ what, got, want string }{
		{"the name resolves to", v.Resolved, clientPrefix + server},
		{"client getsockname", v.GetSockName, clientPrefix + v.Own},
		{"client getpeername", v.GetPeerName, clientPrefix + server},
		{"server accept", v.Seen.Accept, serverPrefix + v.Own},
		{"server getpeername", v.Seen.GetPeerName, serverPrefix + v.Own},
		{"server getsockname", v.Seen.GetSockName, serverPrefix + server},
		{"client's port at the server", fmt.Sprint(v.Seen.Port), fmt.Sprint(v.Port)},
	} {
		if check.got != check.want {
			t.Errorf("%s: %s: %s, want %s", v.Target, check.what, check.got, check.want)
		}
	}
}
