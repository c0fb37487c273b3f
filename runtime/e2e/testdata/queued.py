# SPDX-License-Identifier: Apache-2.0
"""Connects to a port from which nobody accepts and prints how that ends:
queued.py HOST PORT."""
import errno
import socket
import sys

s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(b"hello\n")
print("connected", flush=True)
s.settimeout(30)
try:
    print("received", s.recv(10), flush=True)
except OSError as e:
    print(errno.errorcode.get(e.errno, repr(e)), flush=True)
