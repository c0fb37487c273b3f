# SPDX-License-Identifier: Apache-2.0
"""Uses one connection for good and a new one each time, by name: steady.py HOST PORT MARKER."""
import socket
import sys
import time

host, port = sys.argv[1], int(sys.argv[2])


def echo(s, f, text):
    s.sendall(text)
    if f.readline() != text:
        raise OSError("another line came back")


kept = socket.create_connection((host, port), timeout=10)
lines = kept.makefile("rb")
number = 0
while True:
    number += 1
    text = b"beat %d\n" % number
    try:
        echo(kept, lines, text)
    except OSError as e:
        print("error on the open connection:", repr(e), flush=True)
        sys.exit(1)
    try:
        with socket.create_connection((host, port), timeout=10) as s, s.makefile("rb") as f:
            echo(s, f, text)
    except OSError as e:
        print("error on a new connection:", repr(e), flush=True)
    print("beat", number, flush=True)
    time.sleep(0.05)
