# SPDX-License-Identifier: Apache-2.0
"""Prints the line a server says: ask.py HOST PORT."""
import socket
import sys

with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20) as s:
    print(s.makefile().readline().strip())
