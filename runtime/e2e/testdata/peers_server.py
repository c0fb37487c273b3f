# SPDX-License-Identifier: Apache-2.0
"""Tells every client how it sees it: peers_server.py PORT 4|6."""
import json
import socket
import sys

family = socket.AF_INET6 if sys.argv[2] == "6" else socket.AF_INET
with socket.create_server(("", int(sys.argv[1])), family=family, dualstack_ipv6=family == socket.AF_INET6, backlog=64) as listener:
    while True:
        peer, accepted = listener.accept()
        with peer:
            answer = {"accept": accepted[0], "getpeername": peer.getpeername()[0], "getsockname": peer.getsockname()[0], "port": peer.getpeername()[1]}
            print(json.dumps(answer), flush=True)
            try:
                peer.sendall(json.dumps(answer).encode() + b"\n")
                peer.settimeout(10)
                peer.recv(1)
            except OSError as e:
                print("client is gone:", e, flush=True)
