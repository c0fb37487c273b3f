# SPDX-License-Identifier: Apache-2.0
"""Stores and fetches values over plain sockets: memcached_client.py HOST PORT COUNT."""
import socket
import sys

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
PER_CONNECTION = 50
same = 0
for start in range(0, count, PER_CONNECTION):
    with socket.create_connection((host, port), timeout=20) as s, s.makefile("rwb") as f:
        for i in range(start, min(start + PER_CONNECTION, count)):
            key, value = b"key-%d" % i, b"value %d of %s " % (i, host.encode()) * 20
            f.write(b"set %s 0 0 %d\r\n%s\r\nget %s\r\n" % (key, len(value), value, key))
            f.flush()
            stored, head = f.readline(), f.readline()
            body, end = f.read(len(value) + 2), f.readline()
            if (stored, body, end) == (b"STORED\r\n", value + b"\r\n", b"END\r\n"):
                same += 1
            else:
                print("differs:", key, stored, head, body[:40], end)
print("same:", same)
