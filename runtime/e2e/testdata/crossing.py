# SPDX-License-Identifier: Apache-2.0
"""Keeps one connection busy and makes new ones to each port in turn:
crossing.py HOST MARKER PORT... Prints what goes wrong and how long it took."""
import errno
import itertools
import socket
import sys
import time

host, ports = sys.argv[1], [int(p) for p in sys.argv[3:]]


def word(e):
    return errno.errorcode.get(e.errno, repr(e)) if e.errno else repr(e)


def echo(s, text):
    s.sendall(text)
    got = b""
    while not got.endswith(b"\n"):
        more = s.recv(100)
        if not more:
            raise OSError("EOF")
        got += more
    if got != text:
        raise OSError("another line came back: %r" % got)


def connect(port):
    s = socket.create_connection((host, port))  # no time limit: it has to end by itself
    s.settimeout(20)
    return s


kept = connect(ports[0])
for number in itertools.count():
    text = b"beat %d\n" % number
    try:
        echo(kept, text)
    except OSError as e:
        print("kept", word(e), flush=True)
        while True:
            try:
                kept = connect(ports[0])
                break
            except OSError:
                time.sleep(0.05)
    port = ports[number % len(ports)]
    began, stage = time.monotonic(), "connect"
    try:
        with connect(port) as s:
            stage = "echo"
            echo(s, text)
    except OSError as e:
        print("new", port, stage, word(e), int((time.monotonic() - began) * 1000), flush=True)
    print("beat", number, flush=True)
    time.sleep(0.02)
