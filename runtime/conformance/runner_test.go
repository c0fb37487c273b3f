// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What the comparison rests on: a hang or a crash is one test's, the rest goes on.
func TestRunnerReportsEveryOutcome(t *testing.T) {
	dir := t.TempDir()
	fake, err := os.ReadFile("testdata/test_fake.py")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "test"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"test/test_fake.py": string(fake),
		"test/__init__.py":  "import os\n__path__.append(os.path.join(os.path.dirname(os.__file__), 'test'))\n",
		"exclude":           "test.*.test_7*\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range []string{"127.0.0.1", "127.9.9.9"} {
		cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/runner.py",
			"--host", host, "--limit", "3", "--exclude", filepath.Join(dir, "exclude"), "test_fake")
		cmd.Env = append(os.Environ(), "PYTHONPATH="+dir, "WANT_HOST="+host)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		r, err := read(out)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for id, o := range r.results {
			got[id] = o.Outcome
		}
		want := map[string]string{
			"test.test_fake.A.test_1_ok": "ok", "test.test_fake.A.test_2_hang": "hang", "test.test_fake.A.test_3_crash": "crash",
			"test.test_fake.A.test_4_fail": "fail", "test.test_fake.A.test_5_skip": "skip", "test.test_fake.A.test_6_xfail": "xfail",
			"test.test_fake.A.test_8_forks": "ok", "test.test_fake.Udp.test_stays": "ok",
			"setUpClass (test.test_fake.B)": "error", "test.test_fake.B.test_lost": "missing",
		}
		if !maps.Equal(got, want) || r.excluded["test.test_fake.A.test_7_left"] != "test.*.test_7*" {
			t.Errorf("on %s: %v\nexcluded %v\nwant %v", host, got, r.excluded, want)
		}
	}
}
