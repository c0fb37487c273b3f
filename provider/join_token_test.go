// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
)

// needEphemeral skips where the program has no ephemeral resources (Terraform
// before 1.10, OpenTofu before 1.11).
func needEphemeral(t *testing.T) {
	t.Helper()
	first := atLeast{1, 10}
	if isTofu(t) {
		first = atLeast{1, 11}
	}
	needVersion(t, first, "ephemeral resources")
}

const handOn = `
ephemeral "boxer_join_token" "laptop" {
  network_id = boxer_network.shop.id
  name       = "laptop"
  duration   = "10m"
}

resource "terraform_data" "hand_on" {
  provisioner "local-exec" {
    command     = "umask 077; printf %s \"$TOKEN\" >token"
    environment = { TOKEN = ephemeral.boxer_join_token.laptop.token }
  }
}
`

// TestAccJoinToken: a program joins with nothing but the token, which is found
// nowhere but where it was handed to.
func TestAccJoinToken(t *testing.T) {
	needEphemeral(t)
	c := newCloud(t)
	boxer := builtFile(t, "boxer")
	w := c.workspace()
	w.configure(c.block() + shop + vm("store", `["python3", "-m", "http.server", "8000"]`, "") + handOn)
	w.apply()
	w.emptyPlan()

	path := filepath.Join(w.dir, "token")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	token, err := cluster.ParseToken(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if life := time.Until(token.Expires); life > 10*time.Minute || life < 5*time.Minute {
		t.Errorf("the token is good for %s, want 10 minutes", life)
	}
	w.must("plan", "-destroy", "-out=plan.bin", "-input=false", "-no-color")
	w.keptNowhere(path, text)

	run := func(args ...string) (string, error) {
		cmd := exec.Command(boxer, append([]string{"run", "--join-token-file", path}, args...)...)
		cmd.Env = append(os.Environ(), envStateDir+"=/nonexistent", "HOME=/nonexistent", envPlatform+"=")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for want, args := range map[string][]string{
		`is for a node of name "laptop", not "other"`: {"--name", "other", "--", "true"},
		`is for network "shop", not "other"`:          {"--network", "other", "--", "true"},
		"leave --kind out":                            {"--kind", "vm", "--", "true"},
		"no seed is running there":                    {"--seed", "127.0.0.1:1", "--", "true"},
	} {
		if out, err := run(args...); err == nil || !strings.Contains(out, want) {
			t.Errorf("run %q: %v, %s; want %q", args, err, out, want)
		}
	}
	out, err := run("--", "sh", "-c", "echo $BOXER_NODE_NAME of $BOXER_NETWORK; curl -sS -m 10 -o /dev/null -w %{http_code} http://store:8000/")
	if err != nil || out != "laptop of shop\n200" {
		t.Errorf("with the token: %v, %s", err, out)
	}
	if out, err := run("--", "true"); err == nil || !strings.Contains(out, "has ended already") {
		t.Errorf("with the token for the second time: %v, %s", err, out)
	}
	w.destroy()
}

// keptNowhere looks for the token in all that terraform wrote.
func (w *workspace) keptNowhere(but string, token []byte) {
	w.t.Helper()
	plan := w.must("show", "-json", "plan.bin")
	if strings.Contains(plan, string(token)) {
		w.t.Error("the token is in the plan")
	}
	err := filepath.WalkDir(w.dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path == but {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, token) {
			w.t.Errorf("the token is in %s", path)
		}
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
}

// A guest does not inherit the token of the supervisor that it runs under.
func TestAccJoinTokenIsKeptFromGuests(t *testing.T) {
	c := newCloud(t)
	boxer := builtFile(t, "boxer")
	w := c.workspace()
	w.configure(c.block() + shop)
	w.apply()
	token, err := newLocalPlatform(c.dir, nil).JoinToken(t.Context(), "shop", "laptop", "", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(boxer, "run", "--", "env")
	cmd.Env = append(os.Environ(), envStateDir+"=/nonexistent", "BOXER_JOIN_TOKEN="+token.String())
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("BOXER_NODE_NAME=laptop\n")) || bytes.Contains(out, []byte("JOIN_TOKEN")) {
		t.Errorf("%v, %s", err, out)
	}
	w.destroy()
}

func TestJoinTokenErrors(t *testing.T) {
	needEphemeral(t)
	cases := map[string]string{}
	for name, attributes := range map[string]string{
		"network missing": `name = "laptop"`,
		"name":            `name = "Lap Top"`,
		"duration":        "name = \"laptop\"\n  duration = \"48h\"",
		"no duration":     "name = \"laptop\"\n  duration = \"soon\"",
	} {
		cases[name] = "ephemeral \"boxer_join_token\" \"laptop\" {\n  network_id = \"other\"\n  " + attributes + "\n}\n"
	}
	newWorkspace(t, withPlatform(newFakePlatform())).refuses("join-token", cases)
}
