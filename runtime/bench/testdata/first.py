# SPDX-License-Identifier: Apache-2.0
"""Connects once, to HOST PORT, and prints how many nanoseconds that took."""
import socket
import sys
import time

address = (socket.gethostbyname(sys.argv[1]), int(sys.argv[2]))
with socket.socket() as s:
    began = time.monotonic_ns()
    s.connect(address)
    print(time.monotonic_ns() - began, flush=True)
    s.recv(1)
