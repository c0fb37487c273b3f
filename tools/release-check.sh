#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Releases the last commit twice, in two directories and the second time with an
# empty build cache, and fails if a byte differs. Then installs what came out as
# users do, and uses it once.
set -eu
cd "$(dirname "$0")/.."
here=$PWD
work=$(mktemp -d /tmp/bxrel.XXXXXX)
cleanup() {
    [ -z "${network:-}" ] || BOXER_STATE_DIR=$work/state "$network" network delete check >/dev/null 2>&1 || :
    chmod -R u+w "$work" && rm -rf "$work"
}
trap cleanup EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

for tree in a another/directory; do
    mkdir -p "$work/$tree"
    git archive HEAD | tar -x -C "$work/$tree"
    [ $tree = a ] || { GOCACHE=$work/cache && export GOCACHE; }
    echo "release-check: building in $work/$tree"
    make -s -C "$work/$tree" release >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
done
diff -r "$work/a/dist" "$work/another/directory/dist" ||
    { echo 'release-check: two builds of one commit differ (diffoscope shows in what)'; exit 1; }
cd "$work/a/dist"
for sums in *_SHA256SUMS; do sha256sum -c --quiet "$sums"; done
echo "release-check: the same bytes twice:"
sha256sum *_SHA256SUMS

# The provider, from a mirror of packed archives.
arch=$(go env GOARCH)
mkdir -p "$work/mirror/registry.terraform.io/boxer-overlay/boxer" "$work/quickstart"
cp terraform-provider-boxer_*_linux_*.zip "$work/mirror/registry.terraform.io/boxer-overlay/boxer/"
cp -r "$work/mirror/registry.terraform.io" "$work/mirror/registry.opentofu.org"
cp -r "$here/examples/quickstart/." "$work/quickstart/"
rm -rf "$work/quickstart/.terraform" "$work/quickstart/.terraform.lock.hcl" "$work/quickstart/terraform.d"
terraform=$(command -v terraform || command -v tofu || echo "$here/tools/bin/tofu")
(
    cd "$work/quickstart"
    export CHECKPOINT_DISABLE=1 TF_CLI_CONFIG_FILE=/dev/null
    "$terraform" init -input=false -no-color -plugin-dir="$work/mirror" >/dev/null
    "$terraform" validate -no-color
)

# The command line, from its archive.
tar -xzf boxer_*_linux_"$arch".tar.gz -C "$work"
network=$(echo "$work"/boxer_*_linux_"$arch"/boxer)
"$network" version
BOXER_STATE_DIR=$work/state "$network" network create check
BOXER_STATE_DIR=$work/state "$network" run --network check -- true
BOXER_STATE_DIR=$work/state "$network" network delete check
network=
echo 'release-check: good'
