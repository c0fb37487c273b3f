# SPDX-License-Identifier: Apache-2.0
"""Clients of Figure 6: figure6_client.py HOST PORT CLIENTS CONNECTIONS"""
import collections
import json
import os
import secrets
import socket
import sys
import time

HOST, PORT, CLIENTS, CONNECTIONS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
RUN = secrets.token_hex(4)


def ask(word):
    with socket.create_connection((HOST, PORT), timeout=20) as s:
        s.sendall(f"{word}\n".encode())
        return s.makefile().readline().split()


def client(number, report):
    by, failures = collections.Counter(), []
    for i in range(number, CONNECTIONS, CLIENTS):
        token = f"{RUN}-{i}"
        try:
            echoed, name = ask(token)
            if echoed != token:
                failures.append(f"{token} came back as {echoed}")
            by[name] += 1
        except (OSError, ValueError) as e:
            failures.append(f"{token}: {e!r}")
    os.write(report, json.dumps([by, failures[:5], len(failures)]).encode() + b"\n")


began = time.monotonic()
reader, writer = os.pipe()
for n in range(CLIENTS):
    if os.fork() == 0:
        client(n, writer)
        os._exit(0)
os.close(writer)
by, failures, failed = collections.Counter(), [], 0
for line in os.fdopen(reader):
    more, some, count = json.loads(line)
    by.update(more)
    failures += some
    failed += count
took = time.monotonic() - began
served, distinct = map(int, ask(f"report {RUN}"))
print(json.dumps({"by": by, "failed": failed, "failures": failures, "served": served, "distinct": distinct, "seconds": took}))
