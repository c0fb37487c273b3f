# SPDX-License-Identifier: Apache-2.0
"""Connects until an errno comes, and prints all that came: until.py ADDRESS PORT ERRNO SECONDS"""
import errno
import socket
import sys
import time

end = time.monotonic() + float(sys.argv[4])
seen = []
while time.monotonic() < end and sys.argv[3] not in seen:
    for blocks in True, False:
        with socket.socket() as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
            s.settimeout(None if blocks else 5)
            try:
                s.connect((sys.argv[1], int(sys.argv[2])))
                seen.append("connected")
            except OSError as e:
                seen.append(errno.errorcode.get(e.errno, "timed out"))
    time.sleep(0.1)
print(*seen)
