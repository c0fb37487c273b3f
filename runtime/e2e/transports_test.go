// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestTransports: a node uses the transports it is restricted to and no other,
// towards others and itself, and both ends see overlay addresses on each.
func TestTransports(t *testing.T) {
	w := newWorld(t)
	task := w.task(t)
	w.network(t, "transports")
	serve := []string{"--source-dir", task, "--", "python3", "/var/task/peers_server.py", "9000", "6"}
	w.vm(t, "vm-v6", serve...)
	w.function(t, "fn-v6", serve...)

	for _, test := range []struct {
		kind, transport string
		reaches         string // of the two servers, and itself: "me"
	}{
		{"vm", "native", "me vm-v6"},
		{"vm", "direct", "me vm-v6"},
		{"vm", "punch", "me vm-v6 fn-v6"},
		{"vm", "relay", "me vm-v6 fn-v6"},
		{"function", "native", "me"},
		{"function", "direct", "me vm-v6"},
		{"function", "punch", "me vm-v6 fn-v6"},
		{"function", "relay", "me vm-v6 fn-v6"},
		{"client", "native", "me"},
		{"client", "direct", "me"},
		{"client", "punch", "me"},
		{"client", "relay", "me vm-v6 fn-v6"},
	} {
		name := test.kind + "-" + test.transport + "-v6" // as checkView wants it
		t.Run(name, func(t *testing.T) {
			dir := "/var/task"
			args := []string{"run", "--kind", test.kind, "--name", name, "--transports", test.transport}
			if test.kind == "client" {
				dir = task
			} else {
				args = append(args, "--source-dir", task)
			}
			out := w.must(t, append(args, "--", "python3", dir+"/transports_guest.py", name, "vm-v6", "fn-v6")...)
			all := w.nodes(t)
			var me node
			for line := range strings.Lines(out) {
				var v struct {
					view
					Refused, Curl string
					node
				}
				if err := json.Unmarshal([]byte(line), &v); err != nil {
					t.Fatalf("%v: %s", err, line)
				}
				if v.Curl != "" {
					if v.Curl != "served" {
						t.Errorf("curl of its own name: %q", v.Curl)
					}
					continue
				}
				if v.Target == "" { // who it is
					me = node{ID: v.ID, Overlay: v.Own}
					all[name] = me
					continue
				}
				host, _, _ := strings.Cut(v.Target, ":")
				to, reached := host, strings.Contains(test.reaches, host)
				switch host {
				case name:
					to, reached = fmt.Sprintf("node-%d", me.ID), true
				case "fn-v6":
					to = "fn-v6-0"
				}
				if want := map[bool]string{false: "EHOSTUNREACH"}[reached]; v.Refused != want {
					t.Errorf("%s: %q, want %q", v.Target, v.Refused, want)
				}
				if !reached {
					continue
				}
				checkView(t, v.view, all)
				w.wantPath(t, fmt.Sprintf("node-%d", me.ID), to, test.transport, 2)
			}
			if want := 8; strings.Count(out, "\n") != want {
				t.Errorf("%d lines, want %d:\n%s", strings.Count(out, "\n"), want, out)
			}
		})
	}
}

// TestTransportsRefused: words that are no transports are refused before
// anything starts.
func TestTransportsRefused(t *testing.T) {
	w := newWorld(t)
	for given, want := range map[string]string{
		"direct,tor": `transport "tor": want native, direct, punch or relay`,
	} {
		if r := w.run(t, "run", "--network", "none", "--transports", given, "--", "true"); r.code != 125 || !strings.Contains(r.stderr, want) {
			t.Errorf("want %q: %s", want, r)
		}
	}
}
