# SPDX-License-Identifier: Apache-2.0
"""One row of the matrix of NATs: python3 matrix.py serve | dial SLOT... | follow SLOT | idle SLOT SECONDS"""

import errno
import json
import os
import socket
import socketserver
import sys
import threading
import time

PORT = 9000


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        """Sends the caller's address as this end sees it, and then what comes."""
        self.request.sendall(("%s %d\n" % self.client_address[:2]).encode())
        while data := self.request.recv(65536):
            self.request.sendall(data)


def probed(slots):
    """Waits until all that have a NAT have found out about it."""
    end = time.monotonic() + 8
    while time.monotonic() < end:
        with open(os.environ["BOXER_DIR"] + "/members.json") as file:
            seen = {m["slot"]: m for m in json.load(file)["members"]}
        if all(s in seen and 9000 in seen[s].get("listeners", [PORT]) for s in slots) and not any(
            m["nat"] == "behind" and m["kind"] == "function" and not m.get("nat_report", {}).get("filtering")
            for m in seen.values()
        ):
            return
        time.sleep(0.05)
    sys.exit("not all NATs are probed: %s" % seen)


def connect(slot):
    """Seconds to the first byte; raises what went wrong."""
    began = time.monotonic()
    with socket.create_connection((slot, PORT), timeout=10) as s:
        address, port = s.makefile().readline().split()
        took = time.monotonic() - began
        if (address, int(port)) != s.getsockname():
            raise OSError("the far end sees %s:%s, this one is %s" % (address, port, s.getsockname()))
        if s.getpeername() != (socket.gethostbyname(slot), PORT):
            raise OSError("the peer is %s" % (s.getpeername(),))
        s.sendall(b"x" * 1000)
        if s.recv(1000, socket.MSG_WAITALL) != b"x" * 1000:
            raise OSError("the echo is not what was sent")
    return took


def dial(slots):
    probed(slots)
    for slot in slots:
        result = {"id": int(os.environ["BOXER_NODE_ID"]), "to": slot, "error": ""}
        try:
            result["cold"] = connect(slot)
            time.sleep(0.2)  # paths are prepared meanwhile
            result["warm"] = max(connect(slot) for _ in range(2))
        except OSError as e:
            result["error"] = str(e)
        print(json.dumps(result), flush=True)


def attempt(slot):
    began, start = time.time(), time.monotonic()
    os.write(1, b"%.6f begun\n" % began)
    try:
        connect(slot)
        what = "ok"
    except OSError as e:
        what = "failed (%s)" % e
    os.write(1, b"%.6f %.0f ms: %s\n" % (began, (time.monotonic() - start) * 1e3, what.encode()))


def follow(slot):
    """Connects again and again, whatever became of those before: when, how long, what."""
    probed([slot])
    while True:
        threading.Thread(target=attempt, args=[slot], daemon=True).start()
        time.sleep(0.05)


def serve():
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer.request_queue_size = 64
    socketserver.ThreadingTCPServer(("", PORT), Echo).serve_forever()


def idle(slot, seconds):
    """Says nothing for some time: what becomes of an open connection, and of new ones."""
    probed([slot])
    result = {"cold": connect(slot), "ended": "", "failed": ""}
    with socket.create_connection((slot, PORT), timeout=10) as kept:
        kept.makefile().readline()
        time.sleep(seconds)
        try:
            result["later"] = connect(slot)
        except OSError as e:
            result["failed"] = str(e)
        began = time.monotonic()
        try:
            kept.sendall(b"x")
            result["ended"] = "not" if kept.recv(1) else "EOF"
        except OSError as e:
            result["ended"] = errno.errorcode.get(e.errno, str(e))
        result["after"] = time.monotonic() - began
    result["id"] = int(os.environ["BOXER_NODE_ID"])
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "follow":
        follow(sys.argv[2])
    elif sys.argv[1] == "serve":
        serve()
    elif sys.argv[1] == "idle":
        idle(sys.argv[2], float(sys.argv[3]))
    else:
        dial(sys.argv[2:])
