#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Regenerates the reference pages from what they describe: docs/interposition.md,
# and the provider's (provider/docs) from its schema. With --check it changes nothing
# and fails when a page is not as it would be generated.
set -eu
cd "$(dirname "$0")/.."
version=$(bin/boxer version | awk '{print $2}')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
plugin=$work/mirror/registry.terraform.io/boxer-overlay/boxer/$version/linux_$(go env GOARCH)
mkdir -p "$plugin" "$work/provider"
cp bin/terraform-provider-boxer "$plugin/terraform-provider-boxer_v$version"
cat >"$work/main.tf" <<'HCL'
terraform {
  required_providers { boxer = { source = "boxer-overlay/boxer" } }
}
HCL
terraform=$(command -v terraform || command -v tofu || echo "$PWD/tools/bin/tofu")
(
    cd "$work"
    export CHECKPOINT_DISABLE=1 TF_CLI_CONFIG_FILE=/dev/null
    # OpenTofu looks for its own registry's name.
    cp -r mirror/registry.terraform.io mirror/registry.opentofu.org
    "$terraform" init -input=false -plugin-dir="$work/mirror" >/dev/null
    "$terraform" providers schema -json >schema.json
)
# tfplugindocs looks for the provider under the namespace of its own maker only.
sed -i 's,registry\.[a-z]*\.[a-z]*/boxer-overlay/boxer,registry.terraform.io/hashicorp/boxer,' "$work/schema.json"
# It removes pages that it would not write, so it gets a copy.
cp -r provider/examples "$work/provider/"
tools/bin/tfplugindocs generate --provider-name boxer --provider-dir "$work/provider" --providers-schema "$work/schema.json" >"$work/log" ||
    { cat "$work/log"; exit 1; }
lib/interposition.sh >"$work/interposition.md"

if [ "${1:-}" = --check ]; then
    stale=0
    diff -ru provider/docs "$work/provider/docs" || stale=1
    diff -u docs/interposition.md "$work/interposition.md" || stale=1
    [ $stale = 0 ] || { echo 'docs: these pages are stale (-) and would now be generated as (+): run make docs and commit what it changes'; exit 1; }
    exit
fi
rm -rf provider/docs
cp -r "$work/provider/docs" provider/docs
cp "$work/interposition.md" docs/interposition.md
