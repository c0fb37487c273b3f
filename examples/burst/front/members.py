# SPDX-License-Identifier: Apache-2.0
"""Tells HAProxy which replicas of a service there are, as Boxer's stream of members
has it: HAProxy goes on as it is, and begins nothing new at one that leaves."""
import json, os, socket, sys, time

service = sys.argv[1]


def admin(*commands):
    """One line of commands for HAProxy, which may still be starting."""
    for _ in range(100):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect("/tmp/admin.sock")
                s.sendall(("; ".join(commands) + "\n").encode())
                while s.recv(4096):
                    pass
                return
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.05)
    sys.exit("HAProxy does not listen to its administrator")


free = list(range(40, 0, -1))  # of haproxy.cfg's server-template
used = {}  # member id -> number
stream = socket.socket(socket.AF_UNIX)
stream.connect(os.environ["BOXER_DIR"] + "/members.sock")
for line in stream.makefile():
    event = json.loads(line)
    member = event["member"]
    if member["service"] != service:
        continue
    serves = event["type"] != "leave" and member["state"] == "running" and not (member.get("leaving") or member.get("retired"))
    number = used.get(member["id"])
    if serves and number is None and free:
        number = used[member["id"]] = free.pop()
        admin(f"set server logic/replica{number} addr {member['overlay_address']} port 9000",
              f"set server logic/replica{number} state ready")
    elif number is not None and event["type"] == "leave":
        admin(f"set server logic/replica{number} state maint")
        free.insert(0, used.pop(member["id"]))
    elif number is not None and not serves:
        admin(f"set server logic/replica{number} state drain")
    elif number is not None:
        admin(f"set server logic/replica{number} state ready")
