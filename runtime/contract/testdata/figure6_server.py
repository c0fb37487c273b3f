# SPDX-License-Identifier: Apache-2.0
"""Figure 6 of the paper: P1 and P2 block in accept on one shared listener, P3
has another one on the same address and uses epoll: figure6_server.py PORT"""
import os
import select
import socket
import sys

PORT = int(sys.argv[1])
LOG = os.open("/tmp/figure6", os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_TRUNC, 0o600)


def listener():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("", PORT))
    s.listen(128)
    return s


def serve(name, connection):
    """Echoes one token; every connection that is accepted leaves a line."""
    with connection:
        connection.setblocking(True)
        connection.settimeout(20)
        try:
            token = connection.makefile().readline().strip()
            word, _, run = token.partition(" ")
            if word == "report":
                lines = [line for line in os.pread(LOG, 1 << 26, 0).decode().split() if line.startswith(run)]
                connection.sendall(f"{len(lines)} {len(set(lines))}\n".encode())
                return
            os.write(LOG, f"{token}\n".encode())
            connection.sendall(f"{token} {name}\n".encode())
        except OSError as e:
            os.write(LOG, f"{name}:{e}\n".replace(" ", "_").encode())


def block(name, s):
    while True:
        serve(name, s.accept()[0])


def poll(name, s):
    s.setblocking(False)
    ready = select.epoll()
    ready.register(s, select.EPOLLIN | select.EPOLLET)
    while True:
        ready.poll()
        while True:
            try:
                connection = s.accept()[0]
            except BlockingIOError:
                break
            serve(name, connection)


shared = listener()
if os.fork() == 0:
    block("P1", shared)
if os.fork() == 0:
    shared.close()
    poll("P3", listener())
block("P2", shared)
