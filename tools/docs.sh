#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Regenerates the provider's reference pages (provider/docs) from its schema.
set -eu
cd "$(dirname "$0")/.."
version=$(bin/boxer version | awk '{print $2}')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
plugin=$work/mirror/registry.terraform.io/boxer-overlay/boxer/$version/linux_$(go env GOARCH)
mkdir -p "$plugin"
cp bin/terraform-provider-boxer "$plugin/terraform-provider-boxer_v$version"
cat >"$work/main.tf" <<'HCL'
terraform {
  required_providers { boxer = { source = "boxer-overlay/boxer" } }
}
HCL
(
    cd "$work"
    export CHECKPOINT_DISABLE=1
    terraform init -input=false -plugin-dir="$work/mirror" >/dev/null
    terraform providers schema -json >schema.json
)
# tfplugindocs looks for the provider under the namespace of its own maker only.
sed -i 's,terraform.io/boxer-overlay/boxer,terraform.io/hashicorp/boxer,' "$work/schema.json"
tools/bin/tfplugindocs generate --provider-name boxer --provider-dir provider --providers-schema "$work/schema.json"
