#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# roots.sh [NAME...]: unpacks small systems below tools/bin/roots, which tests show to a
# function's sandbox instead of this machine's: one with an older glibc than Lambda's
# (2.34), for both architectures, and one with musl; kernel-arm64, if asked for, is a
# kernel of Lambda's series (5.10) with its modules. Packages come from where this
# machine's apt has its own, are verified like those, and nothing of them is installed.
set -eu
cd "$(dirname "$0")"
roots=$PWD/bin/roots
[ $# -gt 0 ] || set -- glibc-amd64 glibc-arm64 musl-amd64

say() { printf 'roots: %s\n' "$*"; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e $keyring ] || {
    say "this is not Debian ($keyring is missing): tests on other systems' roots are skipped"
    exit 0
}

# Debian's own archive, as this machine is told to reach it.
find_mirror() {
    apt-get indextargets --format '$(SITE) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
        awk '$2 !~ /-/ && $3 == "main" {print $1; exit}'
}
mirror=''

apt() { # apt DIR ARCH COMMAND...: apt-get with a state of its own
    dir=$1 arch=$2
    shift 2
    apt-get -qq -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State="$dir" -o Dir::State::Status=/dev/null -o Dir::Cache="$dir" -o Dir::Log="$dir" \
        -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o APT::Sandbox::User= \
        -o APT::Install-Recommends=false -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}

for name in "$@"; do
    arch=${name#*-} suite=bullseye
    case $name in
    glibc-*) packages='libc6 dash coreutils busybox python3.9-minimal libpython3.9-stdlib' ;;
    musl-*) packages='musl busybox-static' ;;
    kernel-*) packages="linux-image-cloud-$arch" ;;
    *) say "no root is called $name"; exit 1 ;;
    esac
    [ ! -e "$roots/$name/.of" ] || [ "$(cat "$roots/$name/.of")" != "$suite $packages" ] || continue
    [ -n "$mirror" ] || mirror=$(find_mirror)
    if [ -z "$mirror" ]; then
        sudo=''
        [ "$(id -u)" = 0 ] || sudo='sudo -n'
        $sudo apt-get -qq update && mirror=$(find_mirror)
    fi
    [ -n "$mirror" ] || { say "apt knows no archive of Debian's: run 'apt-get update' as root, and again"; exit 1; }
    say "unpacking $name ($packages of $suite)"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/root"
    echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
    apt "$work" "$arch" update
    # shellcheck disable=SC2086 # a list
    apt "$work" "$arch" -y --download-only install $packages >/dev/null
    for package in "$work"/archives/*.deb; do
        dpkg-deb --extract "$package" "$work/root"
    done
    mkdir -p "$work/root/bin"
    rm -rf "$work/root/usr/share/doc" "$work/root/usr/share/man" "$work/root/usr/share/locale" "$work/root/var" "$work/root/dev"
    case $name in
    glibc-*) ln -sf python3.9 "$work/root/usr/bin/python3" ;;
    musl-*) for program in sh cat ls sleep env id; do ln -sf busybox "$work/root/bin/$program"; done ;;
    esac
    [ -e "$work/root/bin/sh" ] || ln -s dash "$work/root/bin/sh"
    echo "$suite $packages" >"$work/root/.of"
    chmod 755 "$work/root"
    mkdir -p "$roots"
    rm -rf "$roots/$name"
    mv "$work/root" "$roots/$name"
    rm -rf "$work"
done
