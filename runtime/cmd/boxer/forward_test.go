// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestParseForward(t *testing.T) {
	for spec, want := range map[string]struct {
		local string
		port  uint16
	}{
		"5432:5432":              {"127.0.0.1:5432", 5432},
		"0:80":                   {"127.0.0.1:0", 80},
		"0.0.0.0:8080:80":        {"0.0.0.0:8080", 80},
		"localhost:8080:80":      {"localhost:8080", 80},
		"[::1]:8080:80":          {"[::1]:8080", 80},
		"127.0.0.1:65535:65535":  {"127.0.0.1:65535", 65535},
		"":                       {},
		"80":                     {},
		":80":                    {},
		"80:":                    {},
		"80:0":                   {},
		"80:65536":               {},
		"65536:80":               {},
		"http:80":                {},
		"80:http":                {},
		"::1:8080:80":            {},
		"127.0.0.1:8080:80:tcp":  {},
		"127.0.0.1:8080:80 more": {},
	} {
		local, port, err := parseForward(spec)
		if (err == nil) != (want.port != 0) || local != want.local || port != want.port {
			t.Errorf("%q: %q, %d, %v; want %+v", spec, local, port, err, want)
		}
	}
}
