# SPDX-License-Identifier: Apache-2.0
"""Keeps a connection to each of several others and makes new ones all the time,
and says what becomes of them: python3 outage.py PERIOD TARGET... A target is a
slot, or natively:SLOT, which a child without Boxer connects to."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import matrix

NATIVELY = "natively:"


def say(**what):
    os.write(1, (json.dumps(what) + "\n").encode())


def begin(address):
    while True:
        try:
            return socket.create_connection((address, matrix.PORT))
        except ConnectionRefusedError:  # it does not listen yet
            time.sleep(0.05)


def keep(name, address):
    s = begin(address)
    lines = s.makefile("rb")
    lines.readline()
    error = ""
    while not error:
        began = time.time()
        try:
            s.sendall(b"beat\n")
            if lines.readline() != b"beat\n":
                error = "it ended"
        except OSError as e:
            error = str(e)
        took = time.time() - began
        if error or took > 0.5:
            say(to=name, kept=True, at=began, took=took, error=error)
        time.sleep(0.05)


def attempt(name, address):
    began = time.time()
    say(to=name, at=began)
    error = ""
    try:
        with socket.create_connection((address, matrix.PORT), timeout=100) as s:
            if not s.recv(100):
                error = "it ended"
    except OSError as e:
        error = str(e)
    say(to=name, at=began, took=time.time() - began, error=error)


def follow(name, address, period):
    threading.Thread(target=keep, args=[name, address], daemon=True).start()
    while True:
        threading.Thread(target=attempt, args=[name, address], daemon=True).start()
        time.sleep(period)


def natively(target, period):
    with open(os.environ["BOXER_DIR"] + "/members.json") as file:
        at = {m["slot"]: m["underlay_address"] for m in json.load(file)["members"]}[target.removeprefix(NATIVELY)]
    bare = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    subprocess.Popen([sys.executable, __file__, "child", str(period), target, at.rsplit(":", 1)[0]], env=bare)


if __name__ == "__main__":
    if sys.argv[1] == "child":
        follow(sys.argv[3], sys.argv[4], float(sys.argv[2]))
    period, targets = float(sys.argv[1]), sys.argv[2:]
    threading.Thread(target=matrix.serve, daemon=True).start()
    matrix.probed([t.removeprefix(NATIVELY) for t in targets])
    for target in targets:
        if target.startswith(NATIVELY):
            natively(target, period)
        else:
            threading.Thread(target=follow, args=[target, target, period], daemon=True).start()
    threading.Event().wait()
