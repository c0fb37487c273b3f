#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The quickstart from nothing to nothing: apply, 50 requests, who answered, the
# nodes, the transport of every pair, destroy, and proof that nothing is left.
# Called by `make demo`, which builds and installs what is missing first.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=$here/../../bin
# An ordinary user's PATH may lack the place of nginx.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

"$here/../../tools/deps.sh" --check demo || fail 'the above is missing: run make demo, which installs it'
[ -x "$bin/boxer" ] && [ -x "$bin/terraform-provider-boxer" ] || fail 'bin/ is not built: run make demo, which does, or make build'
bin=$(cd "$bin" && pwd)
version=$("$bin/boxer" version | awk '{print $2}')
arch=$("$bin/boxer" version | sed 's,.*linux/,,')

if command -v terraform >/dev/null; then tf=terraform host=registry.terraform.io
elif command -v tofu >/dev/null; then tf=tofu host=registry.opentofu.org
elif [ -x "$here/../../tools/bin/tofu" ]; then tf=$here/../../tools/bin/tofu host=registry.opentofu.org
else fail 'neither terraform nor tofu is here: run make deps'; fi

work=$(mktemp -d "${TMPDIR:-/tmp}/boxer-demo.XXXXXX")
export BOXER_STATE_DIR="$work/state"
export TF_DATA_DIR="$work/terraform" CHECKPOINT_DISABLE=1 TF_IN_AUTOMATION=1
mirror=$work/mirror
plugin=$mirror/$host/boxer-overlay/boxer/$version/linux_$arch

# Processes that name the demo's directory (the network's daemon), and all their
# descendants (hosts, supervisors, guests); this script and its children excepted.
ours() {
    named=$(for dir in /proc/[0-9]*; do
        [ "${dir#/proc/}" != $$ ] && tr '\0' '\n' 2>/dev/null <"$dir/cmdline" | grep -qF "$work" && echo "${dir#/proc/}"
    done || true)
    ps -e -o pid= -o ppid= | awk -v named="$named" -v self=$$ '
        BEGIN { n = split(named, p); for (i = 1; i <= n; i++) in_set[p[i]] = 1 }
        { pid[NR] = $1; parent[$1] = $2 }
        END {
            do {
                grew = 0
                for (i = 1; i <= NR; i++)
                    if (!in_set[pid[i]] && in_set[parent[pid[i]]]) { in_set[pid[i]] = 1; grew = 1 }
            } while (grew)
            for (i = 1; i <= NR; i++) if (in_set[pid[i]] && parent[pid[i]] != self) print pid[i]
        }'
}
# The network namespaces of the processes given, but not this one's.
namespaces() {
    for pid in "$@"; do readlink "/proc/$pid/ns/net" 2>/dev/null || true; done |
        sort -u | grep -vxF "$(readlink /proc/self/ns/net)" || true
}
# How the names of the control groups begin that limit the processes given.
groups() {
    for pid in "$@"; do grep -oh 'boxer-[0-9a-f]*-' "/proc/$pid/cgroup" 2>/dev/null || true; done | sort -u
}
# How many of them there are; grep -c would say nothing where there was none.
limiting() {
    { find /sys/fs/cgroup -type d -name 'boxer-*' 2>/dev/null || true; } | { grep -F -f "$work/groups" || true; } | wc -l
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

# The port of the example, or the next that nobody else has.
port=$(python3 - <<'PYTHON'
import errno, socket
for port in range(8080, 8100):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
            break
        except OSError as e:
            if e.errno != errno.EADDRINUSE:
                raise
print(port)
PYTHON
)
if [ "$port" != 8080 ]; then
    say "port 8080 of this machine is taken by another program: publishing at $port instead"
    sed -i "s/host_port = 8080/host_port = $port/" main.tf
fi
url=http://127.0.0.1:$port/

say "$tf init, apply"
$tf init -input=false -plugin-dir="$mirror" >"$work/init.log" || { cat "$work/init.log"; fail 'init failed'; }
began=$(date +%s.%N)
$tf apply -input=false -auto-approve
took=$(echo "$(date +%s.%N) $began" | awk '{printf "%.1f", $1 - $2}')
say "applied in $took s: laptop -> nginx on a VM -> Python on functions behind NAT -> Redis on a VM"

say "50 requests to $url: who answered"
i=0
while [ $i -lt 50 ]; do
    curl -fsS --noproxy '*' --max-time 10 "$url" >>"$work/answers" || fail "request $i failed"
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
pids=$(ours)
namespaces $pids >"$work/namespaces"
groups $pids >"$work/groups"
echo "before: $(echo "$pids" | wc -l) processes, $(wc -l <"$work/namespaces") network namespaces, $(limiting) control groups, $(find "$BOXER_STATE_DIR/networks" -type f | wc -l) files of state"
began=$(date +%s.%N)
$tf destroy -input=false -auto-approve
echo "destroyed in $(echo "$(date +%s.%N) $began" | awk '{printf "%.1f", $1 - $2}') s"

say 'what is left'
# One that has ended, and waits only for this machine's init to take note (state
# Z), is not left.
left=$({ ours; for pid in $pids; do ! grep -q '^State:.[^ZX]' "/proc/$pid/status" 2>/dev/null || echo "$pid"; done; } | sort -u)
processes=$(echo "$left" | grep -c . || true)
networks=$(namespaces $(ls /proc | grep '^[0-9]') | grep -xFc -f "$work/namespaces" || true)
mounts=$(grep -cF "$work" /proc/self/mountinfo || true)
limits=$(limiting)
files=$(find "$BOXER_STATE_DIR/networks" -mindepth 1 2>/dev/null | wc -l)
echo "processes: $processes, network namespaces: $networks, control groups: $limits, mounts: $mounts, files: $files"
[ "$processes$networks$limits$mounts$files" = 00000 ] || { echo "$left" | xargs -r ps -fp; fail 'something was left behind'; }
echo 'nothing'
