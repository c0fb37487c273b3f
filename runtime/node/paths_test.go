// SPDX-License-Identifier: Apache-2.0

package node

import (
	"testing"

	"github.com/boxer-overlay/boxer/runtime/config"
)

func TestRewrite(t *testing.T) {
	const root = "/opt/state/hosts/a"
	cfg := config.Node{Root: root, Places: []string{"/var/task", "/opt", "/etc/app.conf"}}
	for text, want := range map[string]string{
		"":                               "",
		"/var/task":                      root + "/var/task",
		"/var/task/app.py":               root + "/var/task/app.py",
		"/opt/bin/tool":                  root + "/opt/bin/tool",
		"--dir=/var/task/www":            "--dir=" + root + "/var/task/www",
		"-c/var/task/nginx.conf":         "-c" + root + "/var/task/nginx.conf",
		"/usr/bin:/opt/bin:/var/task":    "/usr/bin:" + root + "/opt/bin:" + root + "/var/task",
		"exec python3 '/var/task/a' /op": "exec python3 '" + root + "/var/task/a' /op",
		"cat </var/task/a >/tmp/b":       "cat <" + root + "/var/task/a >/tmp/b",
		"-f /etc/app.conf":               "-f " + root + "/etc/app.conf",
		// None of the node's own.
		"/etc/app.conf.d":           "/etc/app.conf.d",
		"/optional":                 "/optional",
		"/var/tasks/x":              "/var/tasks/x",
		"/usr/opt/x":                "/usr/opt/x",
		"a/opt":                     "a/opt",
		"/home/me/var/task":         "/home/me/var/task",
		"http://host/opt/x":         "http://host/opt/x",
		root + "/var/task/a":        root + "/var/task/a",
		"TMP=" + root + "/tmp:/opt": "TMP=" + root + "/tmp:" + root + "/opt",
	} {
		if got := rewrite(&cfg, text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
		if got := rewrite(&config.Node{}, text); got != text {
			t.Errorf("%q without a root: %q", text, got)
		}
	}
}
