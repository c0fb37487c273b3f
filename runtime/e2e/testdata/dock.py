# SPDX-License-Identifier: Apache-2.0
"""Echoes lines on listeners of every sort.

9000 is shared by two processes that block in accept, 9001 has two listeners of
its own each (SO_REUSEPORT), 9002 is inherited through an exec by a program that
waits in epoll, and nobody accepts from 9003."""
import os
import select
import socket
import sys
import threading


def listener(port, reuse=False):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("", port))
    s.listen(64)
    return s


def echo(conn):
    with conn, conn.makefile("rb") as f:
        try:
            for line in f:
                conn.sendall(line)
        except OSError:
            pass


def serve(s):
    while True:
        threading.Thread(target=echo, args=(s.accept()[0],), daemon=True).start()


if sys.argv[1:2] == ["--inherited"]:
    s = socket.socket(fileno=int(sys.argv[2]))
    s.setblocking(False)
    e = select.epoll()
    e.register(s, select.EPOLLIN)
    while True:
        e.poll()
        try:
            conn = s.accept()[0]
        except BlockingIOError:
            continue
        conn.setblocking(True)
        threading.Thread(target=echo, args=(conn,), daemon=True).start()

inherited, idle, shared = listener(9002), listener(9003), listener(9000)
os.set_inheritable(inherited.fileno(), True)
if os.fork() == 0:
    os.execv(sys.executable, [sys.executable, __file__, "--inherited", str(inherited.fileno())])
first = listener(9001, True)
if os.fork() == 0:
    first = listener(9001, True)  # the other's stays open here: as many servers do
threading.Thread(target=serve, args=(first,), daemon=True).start()
serve(shared)
