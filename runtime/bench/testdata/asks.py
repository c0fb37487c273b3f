# SPDX-License-Identifier: Apache-2.0
"""A guest that asks every replica of a service, the moment it runs: it prints the
slot and when it was greeted."""
import json, os, socket, sys, threading, time

service, port = sys.argv[1], int(sys.argv[2])


def ask(slot, address):
    with socket.create_connection((address, port), timeout=20) as s:
        if s.recv(1):
            print("greeted", slot, time.time_ns(), flush=True)


stream = socket.socket(socket.AF_UNIX)
stream.connect(os.environ["BOXER_DIR"] + "/members.sock")
asked = set()
for line in stream.makefile():
    event = json.loads(line)
    member = event["member"]
    if event["type"] == "leave" or member["service"] != service or member["state"] != "running" or member["id"] in asked:
        continue
    asked.add(member["id"])
    print("runs", member["slot"], time.time_ns(), flush=True)
    threading.Thread(target=ask, args=(member["slot"], member["overlay_address"])).start()
