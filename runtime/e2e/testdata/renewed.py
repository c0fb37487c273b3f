# SPDX-License-Identifier: Apache-2.0
"""Uses two servers, whose names it looks up once: renewed.py SHORT KEPT PORT.
Of SHORT it asks on a new connection each time, some hundred times a second. To KEPT it
holds one connection open and asks on it ten times a second, until SHORT has begun to
answer otherwise and a little longer: a request that is on its way when a server ends is
nobody's fault. It says what they answer when that changes, and all that goes wrong."""
import http.client
import select
import socket
import sys
import threading
import time

port = int(sys.argv[3])
changed = threading.Event()


def look_up(name):
    while True:
        try:
            return socket.gethostbyname(name)
        except OSError:
            time.sleep(0.02)


def ask(c):
    c.request("GET", "/")
    r = c.getresponse()
    return r.status, r.read().decode().strip()


def short(address):
    last, count = None, 0
    while True:
        began = time.monotonic()
        try:
            c = http.client.HTTPConnection(address, port, timeout=5)
            now = ask(c)
            c.close()
        except OSError as e:
            if last is None:
                continue  # it has not started yet
            now = repr(e)
        count += 1
        if now != last or count % 50 == 0:
            print("short", now, count, flush=True)
        if last and now != last:
            changed.set()
        last = now
        time.sleep(max(0, began + 0.01 - time.monotonic()))


def kept(address):
    while True:
        try:
            c = http.client.HTTPConnection(address, port, timeout=5)
            now = ask(c)
        except OSError as e:
            print("kept", repr(e), flush=True)
            time.sleep(0.1)
            continue
        print("kept", now, flush=True)
        try:
            left = 5
            while not select.select([c.sock], [], [], 0.1 if left else None)[0]:
                if changed.is_set():
                    left -= 1
                again = ask(c)
                if again != now:
                    print("kept", again, "on the same connection", flush=True)
            print("kept ended", c.sock.recv(1), flush=True)  # nothing: in order
        except OSError as e:
            print("kept broke", repr(e), flush=True)
        c.close()


one, other = look_up(sys.argv[1]), look_up(sys.argv[2])
threading.Thread(target=short, args=(one,)).start()
kept(other)
