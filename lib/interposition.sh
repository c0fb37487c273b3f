#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Writes docs/interposition.md from exports.map, the list of what is exported.
#   interposition.sh            the page, to standard output
#   interposition.sh --names    the exported names alone, one a line
set -eu
cd "$(dirname "$0")"

if [ "${1:-}" = --names ]; then
    sed -n '/global:/,/local:/s/^ *\([A-Za-z0-9_]*\);.*/\1/p' exports.map | sort
    exit
fi

cat <<'TEXT'
# Which functions the process monitor stands in for

Made from `lib/exports.map` by `make docs`; a test holds it against the built library.

All of them are the kernel's or libc's own in a process that is no guest, and for
sockets that are not TCP or addresses outside the overlay.
TEXT
awk -F '|' '
function trim(s) { gsub(/^[ \t]+|[ \t]+$/, "", s); return s }
function row(name, done, why) { printf "| %s | %s | %s |\n", name, trim(done), trim(why) }
/\/\* = / {
    sub(/.*\/\* = /, ""); sub(/ \*\/.*/, "")
    printf "\n## %s\n\n| function | what is done | why |\n|---|---|---|\n", $0
    next
}
/\/\* not: / {
    sub(/.*\/\* not: /, ""); sub(/ \*\/.*/, "")
    names = trim($1); gsub(/[A-Za-z0-9_]+/, "`&`", names)
    row(names, $2, $3)
    next
}
/^ +[A-Za-z0-9_]+; *\/\* .* \| .*\*\/$/ {
    name = $0; sub(/^ +/, "", name); sub(/;.*/, "", name)
    sub(/.*;[ ]*\/\* /, "", $1); sub(/ \*\/$/, "", $2)
    row("**`" name "`**", $1, $2)
}' exports.map
cat <<'TEXT'

## Where it differs from a kernel's socket

- A connect that the supervisor has to plan (direct, hold) asks it first. Until it has
  answered, at most 10 s, a signal or `SO_SNDTIMEO` does not end the call; a thread is not
  cancelled there. The wait for the connection itself is the kernel's in every way.
- `TCP_FASTOPEN_CONNECT` is taken off a socket that is held, for it would let connect()
  return before there is a connection; the option reads 0 afterwards.
  `TCP_FASTOPEN_NO_COOKIE` reads 1 after a direct connect. `TCP_SYNCNT` reads 3 after a
  connect that has started a node (or was to: it timed out), unless it was less.
- `MSG_FASTOPEN` to an overlay address works where `net.ipv4.tcp_fastopen` is off, and
  sends its data after the handshake. With `MSG_DONTWAIT` on a blocking socket that is
  held the call takes up to a tick of the kernel's clock.
- Without a supervisor a connect that needs it gives ENETDOWN at once; native connects,
  listen, accept and getsockname go on. A process that never got a node table knows
  overlay addresses by BOXER_CIDR, and gives ENETDOWN for all of them.
- At the limit of descriptors a connect that needs the supervisor gives EMFILE, which
  connect() natively never does: the conversation takes one, for as long as it lasts.
- Asking whether an address of the guest can be read costs one harmless system call
  (`rt_sigprocmask` with an impossible argument), and the first hook of a process fetches
  the table. A guest that means to filter its system calls has to allow these, or to
  make its first overlay call before.
- Programs linked statically and those that do not use libc are not reached.
TEXT
