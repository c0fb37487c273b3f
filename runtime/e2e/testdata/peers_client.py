# SPDX-License-Identifier: Apache-2.0
"""Prints both ends' view of a connection to each target: peers_client.py HOST:PORT:4|6..."""
import json
import os
import socket
import sys

for target in sys.argv[1:]:
    host, port, version = target.split(":")
    family = socket.AF_INET6 if version == "6" else socket.AF_INET
    flags = socket.AI_V4MAPPED if version == "6" else 0
    address = socket.getaddrinfo(host, int(port), family, socket.SOCK_STREAM, 0, flags)[0][4]
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(20)
        s.connect(address)
        seen = json.loads(s.makefile().readline())
        print(json.dumps({
            "target": target, "own": os.environ["BOXER_NODE_ADDRESS"], "resolved": address[0],
            "getsockname": s.getsockname()[0], "getpeername": s.getpeername()[0], "port": s.getsockname()[1], "seen": seen,
        }), flush=True)
