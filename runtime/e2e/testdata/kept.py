# SPDX-License-Identifier: Apache-2.0
"""Keeps connections open, makes new ones, and says what became of both, round by
round, when some of the open ones have ended: kept.py HOST PORT COUNT MARKER."""
import errno
import json
import select
import socket
import sys
import time

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
AFTER = 2  # seconds that a round goes on once an open connection has ended


def echo(s):
    s.sendall(b"hello\n")
    if s.recv(64) != b"hello\n":
        raise OSError(0, "the end")


def word(e):
    return errno.errorcode.get(e.errno, str(e))


def end(s):
    """How it has ended, or None."""
    try:
        return "EOF" if not s.recv(64) else "bytes"
    except OSError as e:
        return word(e)


while True:
    kept = []
    for _ in range(count):
        kept.append(socket.create_connection((host, port), timeout=10))
        echo(kept[-1])
    print("open", count, flush=True)
    ended, failed, slowest, made, until = [], [], 0, 0, None
    while until is None or time.monotonic() < until:
        for s in select.select(kept, [], [], 0.05)[0]:
            ended.append(end(s))
            kept.remove(s)
            until = until or time.monotonic() + AFTER
        began = time.monotonic()
        try:
            with socket.create_connection((host, port), timeout=10) as s:
                echo(s)
                made += 1
        except OSError as e:
            failed.append(word(e))
        slowest = max(slowest, time.monotonic() - began)
    for s in kept:
        echo(s)
        s.close()
    print(json.dumps({"ended": ended, "open": len(kept), "made": made, "failed": failed, "slowest": round(slowest, 3)}), flush=True)
