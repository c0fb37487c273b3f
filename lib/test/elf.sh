#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What libboxer.so must be, for any libc to load it. elf.sh BUILD-DIRECTORY
set -eu
here=$(dirname "$0")
build=$1

fail() {
    echo "elf: $1: $2" >&2
    exit 1
}

# The page says what is exported: no more and no less.
page=$here/../../docs/interposition.md
"$here/../interposition.sh" | cmp - "$page" || fail "$page" "is not what exports.map says: make docs"
wanted=$(sed -n 's/^| \*\*`\([A-Za-z0-9_]*\)`\*\* |.*/\1/p' "$page" | sort)
for name in $(sed -n 's/^| \(`.*`\) | .*/\1/p' "$page" | cut -d '|' -f 1 | tr -d '`,'); do
    case " $(echo $wanted) " in *" $name "*) fail "$page" "has $name twice" ;; esac
done
# What is written to be exported is in the list.
entries=$(sed -n 's/^ENTRY([^,]*, *\([A-Za-z0-9_]*\),.*/\1/p; s/.*ENTRY(long, \(syscall\), .*/\1/p' \
    "$here"/../*.c | sort)
[ "$entries" = "$wanted" ] || fail "$page" "names
$wanted
and the sources have
$entries"

check() {
    lib=$1
    machine=$2
    readelf -hW "$lib" | grep -q "Machine:.*$machine" || fail "$lib" "not for $machine"
    readelf -dW "$lib" | grep -q NEEDED && fail "$lib" "needs another library"
    readelf -VW "$lib" | grep -q "No version information" || fail "$lib" "has symbol versions"
    readelf -lW "$lib" | grep -q " TLS " && fail "$lib" "has thread-local storage"
    readelf -lW "$lib" | grep -q "GNU_STACK.* RWE" && fail "$lib" "has an executable stack"
    readelf -dW "$lib" | grep -q TEXTREL && fail "$lib" "has text relocations"
    size=$(stat -c %s "$lib")
    [ "$size" -le 65536 ] || fail "$lib" "is $size bytes, more than 64 KiB"
    exported=$(readelf --dyn-syms -W "$lib" |
        awk '$5 == "GLOBAL" && $7 != "UND" && NR > 3 { print $8 }' | sort)
    [ "$exported" = "$wanted" ] || fail "$lib" "exports
$exported"
    strong=$(readelf --dyn-syms -W "$lib" | awk '$5 == "GLOBAL" && $7 == "UND" { print $8 }')
    [ -z "$strong" ] || fail "$lib" "cannot do without $strong"
    echo "elf: $lib: $size bytes, as it must be"
}

check "$build/amd64/libboxer.so" X86-64
if [ -e "$build/arm64/libboxer.so" ]; then
    check "$build/arm64/libboxer.so" AArch64
fi

# The same sources give the same bytes.
again=$(mktemp -d)
trap 'rm -rf "$again"' EXIT
make -s -C "$here/.." BUILD="$again" OUT="$again/libboxer.so" >&2
cmp "$again/libboxer.so" "$build/amd64/libboxer.so" || fail "amd64" "two builds differ"
