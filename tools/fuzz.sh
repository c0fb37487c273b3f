#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fuzzes every reader of foreign bytes that is written in Go, one after the other:
#   tools/fuzz.sh [SECONDS [TARGET...]]     TARGET is a package's folder and a name
# What it found interesting is kept beside the tests, in testdata/fuzz.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(grep -rho --include='*_test.go' -H '^func Fuzz[A-Za-z]*' runtime layer | sed 's,/[^/]*:func ,:,' | sort)
cache=$(go env GOCACHE)/fuzz
module=$(go list -m)
for target; do
    package=${target%:*} name=${target#*:}
    echo "== $package $name"
    go test "./$package" -run '^$' -fuzz "^$name\$" -fuzztime "${seconds}s" -parallel 2 | tail -n 4
    found=$cache/$module/$package/$name
    [ -d "$found" ] || continue
    mkdir -p "$package/testdata/fuzz/$name"
    # Some, and small ones: they are run with every test.
    find "$found" -type f -size -2k | sort | head -n 50 | while read -r file; do
        cp "$file" "$package/testdata/fuzz/$name/"
    done
done
