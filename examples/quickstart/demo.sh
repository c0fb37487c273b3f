#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The quickstart from nothing to nothing: apply, 50 requests, who answered, the
# nodes, the transport of every pair, destroy, and proof that nothing is left.
# Called by `make demo`, which builds and installs what is missing first.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$here/../../bin" && pwd)
version=$("$bin/boxer" version | awk '{print $2}')
arch=$(go env GOARCH)

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

if command -v terraform >/dev/null; then tf=terraform host=registry.terraform.io
elif command -v tofu >/dev/null; then tf=tofu host=registry.opentofu.org
elif [ -x "$here/../../tools/bin/tofu" ]; then tf=$here/../../tools/bin/tofu host=registry.opentofu.org
else fail 'neither terraform nor tofu is here: run make deps'; fi

work=$(mktemp -d "${TMPDIR:-/tmp}/boxer-demo.XXXXXX")
export BOXER_STATE_DIR="$work/state"
export TF_DATA_DIR="$work/terraform" CHECKPOINT_DISABLE=1 TF_IN_AUTOMATION=1
mirror=$work/mirror
plugin=$mirror/$host/boxer-overlay/boxer/$version/linux_$arch

# All network namespaces that processes live in, as far as this user may see.
all_namespaces() { readlink /proc/[0-9]*/ns/net 2>/dev/null | sort -u; }
all_namespaces >"$work/namespaces"
# Those that were not there when the demo began.
namespaces() { all_namespaces | grep -vxFc -f "$work/namespaces" || true; }
# Processes of the demo: in one of those, or naming its directory; this script excepted.
ours() {
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        [ "$pid" != $$ ] || continue
        ns=$(readlink "$dir/ns/net" 2>/dev/null) || ns=
        if [ -n "$ns" ] && ! grep -qxF "$ns" "$work/namespaces"; then
            echo "$pid"
        elif tr '\0' '\n' 2>/dev/null <"$dir/cmdline" | grep -qF "$work"; then
            echo "$pid"
        fi
    done
}
cleanup() {
    status=$?
    trap - EXIT INT TERM
    if [ -d "$work/config" ] && [ -e "$work/config/terraform.tfstate" ]; then
        (cd "$work/config" && $tf destroy -auto-approve >/dev/null 2>&1) || true
    fi
    [ ! -e "$BOXER_STATE_DIR" ] || "$bin/boxer" network delete shop >/dev/null 2>&1 || true
    chmod -R u+w "$work" 2>/dev/null || true
    rm -rf "$work"
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir -p "$plugin" "$work/config"
cp "$bin/terraform-provider-boxer" "$plugin/terraform-provider-boxer_v$version"
cp -R "$here/main.tf" "$here/app" "$here/front" "$work/config/"
cd "$work/config"

say "$tf init, apply"
$tf init -input=false -plugin-dir="$mirror" >"$work/init.log" || { cat "$work/init.log"; fail 'init failed'; }
began=$(date +%s.%N)
$tf apply -input=false -auto-approve
took=$(echo "$(date +%s.%N) $began" | awk '{printf "%.1f", $1 - $2}')
say "applied in $took s: laptop -> nginx on a VM -> Python on functions behind NAT -> Redis on a VM"

say '50 requests to http://127.0.0.1:8080/: who answered'
i=0
while [ $i -lt 50 ]; do
    curl -fsS --max-time 10 http://127.0.0.1:8080/ >>"$work/answers" || fail "request $i failed"
    i=$((i + 1))
done
tail -n 2 "$work/answers"
grep -o 'logic-[0-9]*' "$work/answers" | sort | uniq -c
[ "$(grep -o 'logic-[0-9]*' "$work/answers" | sort -u | wc -l)" = 2 ] || fail 'both replicas should have answered'

say 'a second plan'
$tf plan -input=false -detailed-exitcode >"$work/plan.log" || { cat "$work/plan.log"; fail 'the plan is not empty'; }
echo 'is empty'

say 'the nodes'
"$bin/boxer" nodes --network shop
say 'the transport of every pair'
sleep 2 # supervisors report their paths once a second
"$bin/boxer" paths --network shop

say "$tf destroy"
echo "before: $(ours | wc -l) processes, $(namespaces) network namespaces, $(find "$BOXER_STATE_DIR" -type f | wc -l) files of state"
began=$(date +%s.%N)
$tf destroy -input=false -auto-approve
echo "destroyed in $(echo "$(date +%s.%N) $began" | awk '{printf "%.1f", $1 - $2}') s"

say 'what is left'
processes=$(ours | wc -l)
networks=$(namespaces)
mounts=$(grep -cF "$work" /proc/self/mountinfo || true)
files=$(find "$BOXER_STATE_DIR/networks" -mindepth 1 2>/dev/null | wc -l)
echo "processes: $processes, network namespaces: $networks, mounts: $mounts, files: $files"
[ "$processes$networks$mounts$files" = 0000 ] || { ours | xargs -r ps -fp; fail 'something was left behind'; }
echo 'nothing'
