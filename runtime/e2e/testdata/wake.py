# SPDX-License-Identifier: Apache-2.0
"""Connects, says a line and hears it: wake.py HOST PORT COUNT PAUSE [LIMIT].

COUNT connections all at once, or, with a PAUSE in seconds, one after the other. Every
second one does not block, the others do, for LIMIT seconds (SO_SNDTIMEO). Prints a line for each: what came of it, and after how
many milliseconds.
"""
import errno
import select
import socket
import struct
import sys
import threading
import time

HOST, PORT, COUNT, PAUSE = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
LIMIT = int(sys.argv[5]) if len(sys.argv) > 5 else 0
together = threading.Barrier(1 if PAUSE else COUNT)


def connect(address, blocks):
    s = socket.socket()
    if blocks:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", LIMIT, 0))
        s.connect(address)
        return s
    s.setblocking(False)
    began = time.monotonic()
    failed = s.connect_ex(address)
    if failed != errno.EINPROGRESS or time.monotonic() - began > 5:  # a hundred threads have one CPU, or less
        raise OSError(failed, "instead of EINPROGRESS at once")
    poll = select.poll()
    poll.register(s, select.POLLOUT)
    poll.poll(60000)
    failed = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed:
        raise OSError(failed, "later")
    s.setblocking(True)
    return s


def one(i):
    address = (socket.gethostbyname(HOST), PORT)
    together.wait()
    began = time.monotonic()
    try:
        with connect(address, i % 2 == 0) as s:
            if s.getpeername() != address:
                raise OSError(0, f"peer {s.getpeername()}")
            s.sendall(b"line %d\n" % i)
            said = s.makefile("rb").readline()
            result = "ok" if said == b"line %d\n" % i else repr(said)
    except OSError as e:
        result = errno.errorcode.get(e.errno, str(e))
    print(f"{result} {1000 * (time.monotonic() - began):.0f}\n", end="", flush=True)


def all_at_once():
    threads = [threading.Thread(target=one, args=(i,)) for i in range(COUNT)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


if PAUSE:
    for i in range(COUNT):
        one(i)
        time.sleep(PAUSE)
else:
    all_at_once()
