# SPDX-License-Identifier: Apache-2.0
"""Reads each connection to its end, answers with what it got: stream_server.py PORT shared|reuseport.

Four processes accept, from one inherited listener or from one listener each."""
import hashlib
import os
import socket
import sys
import threading


def serve(peer):
    with peer:
        digest, size = hashlib.sha256(), 0
        while data := peer.recv(1 << 16):
            digest.update(data)
            size += len(data)
        peer.sendall(b"%d %s\n" % (os.getpid(), digest.hexdigest().encode()))
        block = digest.digest() * 2048
        while size > 0:  # and as much the other way
            peer.sendall(block[:size])
            size -= len(block)


def accept(listener):
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=serve, args=(peer,), daemon=True).start()


def listen():
    return socket.create_server(("", int(sys.argv[1])), backlog=128, reuse_port=sys.argv[2] == "reuseport")


shared = listen()
for _ in range(3):
    if os.fork() == 0:
        accept(listen() if sys.argv[2] == "reuseport" else shared)
accept(shared)
