# SPDX-License-Identifier: Apache-2.0
"""One of many that all connect to all others at once: python3 mesh.py COUNT.

It tells the program that connects (mesh.c) whom, and when: at a time that
everybody knows, some seconds after the last one joined.
"""

import datetime
import json
import os
import subprocess
import sys
import time

PORT = 9000
COUNT = int(sys.argv[1])


def everybody():
    with open(os.environ["BOXER_DIR"] + "/members.json") as file:
        seen = [m for m in json.load(file)["members"] if m["service"] == "mesh"]
    probed = all(m.get("nat_report", {}).get("filtering") for m in seen)
    listening = all(PORT in m.get("listeners", []) for m in seen)
    return seen if len(seen) == COUNT and probed and listening else None


def seconds(stamp):
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return datetime.datetime.fromisoformat(whole + "+00:00").timestamp() + float("0." + (fraction or "0"))


mesh = subprocess.Popen(["/var/task/mesh", str(PORT)], stdin=subprocess.PIPE)
while not (members := everybody()):
    time.sleep(0.2)
begin = max(seconds(m["since"]) for m in members) + 4 + COUNT / 6
others = {m["overlay_address"] for m in members} - {os.environ["BOXER_NODE_ADDRESS"]}
mesh.stdin.write(("%f %s\n" % (begin, " ".join(sorted(others)))).encode())
mesh.stdin.flush()
sys.exit(mesh.wait())
