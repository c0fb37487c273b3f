// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/boxer-overlay/boxer/provider/emulator"
)

// traced makes a network with a given secret, and a token with the generated secret of
// another one, with the provider as it is built and all that it logs.
const traced = `
variable "secret" {
  type      = string
  sensitive = true
  ephemeral = true
}
resource "boxer_network" "vault" {
  name              = "vault"
  secret_wo         = var.secret
  secret_wo_version = 1
}
ephemeral "boxer_join_token" "laptop" {
  network_id = "shop"
  name       = "laptop"
  duration   = "10m"
}
`

// inNoLog looks for secrets in what terraform and the provider log at most.
func inNoLog(t *testing.T, a *emulator.AWS) {
	t.Helper()
	needEphemeral(t)
	plugin := builtFile(t, "terraform-provider-boxer")
	out, err := ssm.NewFromConfig(a.Config()).GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("/boxer/shop/secret"), WithDecryption: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{"given": "a-secret-that-is-in-no-log", "generated": aws.ToString(out.Parameter.Value)}
	w := &workspace{t: t, dir: t.TempDir(), program: terraformPath(t)}
	w.configure(awsBlock + traced)
	w.write("cli.tfrc", fmt.Sprintf("provider_installation {\n  dev_overrides { \"boxer-overlay/boxer\" = %q }\n  direct {}\n}\n", filepath.Dir(plugin)))
	if err := os.Mkdir(filepath.Join(w.dir, ".terraform"), 0o755); err != nil { // no init with an override
		t.Fatal(err)
	}
	log := filepath.Join(w.dir, "trace.log")
	w.env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+filepath.Join(w.dir, "cli.tfrc"), "CHECKPOINT_DISABLE=1", "TF_VAR_secret="+secrets["given"],
		"TF_LOG=TRACE", "TF_LOG_PATH="+log)
	asked := len(a.Calls("ssm.GetParameter"))
	w.apply()
	w.destroy()
	text := readText(t, log)
	if !strings.Contains(text, "provider.terraform-provider-boxer") || len(a.Calls("ssm.GetParameter")) == asked {
		t.Errorf("the provider did not log, or was not asked: %d bytes, %v", len(text), len(a.Calls("ssm.GetParameter"))-asked)
	}
	for name, secret := range secrets {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("the %s secret is logged: %s", name, text[max(0, at-200):at])
		}
	}
}
