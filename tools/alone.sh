#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# alone.sh TEST-BINARY [ARG...]: run the tests of one package in a network
# namespace of their own, so that packages tested at the same time cannot take
# each other's ports. It has loopback only: no test may need more. Where such a
# namespace may not be made, they share the machine's.
set -euo pipefail
if unshare --net ip link set lo up 2>/dev/null; then
	exec unshare --net sh -c 'ip link set lo up && exec "$@"' alone "$@"
fi
exec "$@"
