# SPDX-License-Identifier: Apache-2.0
"""Prints how a connection to each target ends: connect.py HOST:PORT..."""
import errno
import socket
import sys
import time

for target in sys.argv[1:]:
    host, port = target.rsplit(":", 1)
    for blocking in (True, False):
        began = time.monotonic()
        with socket.socket() as s:
            if not blocking:
                s.settimeout(20)
            try:
                s.connect((host, int(port)))
                word = "connected"
            except TimeoutError as e:
                word = "ETIMEDOUT" if e.errno == errno.ETIMEDOUT else "gave up"
            except OSError as e:
                word = errno.errorcode.get(e.errno, str(e))
        print(target, "blocking" if blocking else "non-blocking", word, int((time.monotonic() - began) * 1000), flush=True)
