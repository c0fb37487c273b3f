# SPDX-License-Identifier: Apache-2.0
"""Answers every connection with one line and stays: tick.py PORT MARKER."""
import os
import socket
import sys

with socket.create_server(("", int(sys.argv[1])), backlog=64) as listener:
    print("up", os.getpid(), flush=True)
    while True:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"pid %d\n" % os.getpid())
