# SPDX-License-Identifier: Apache-2.0
"""Serves port 9000 itself and prints both ends' view of a connection to each
host, its own name first, then fetches a page from itself with curl:
transports_guest.py OWN HOST..."""
import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
import time

here = os.path.dirname(os.path.abspath(__file__))
server = subprocess.Popen([sys.executable, here + "/peers_server.py", "9000", "6"], stdout=subprocess.DEVNULL)
print(json.dumps({"id": int(os.environ["BOXER_NODE_ID"]), "own": os.environ["BOXER_NODE_ADDRESS"]}), flush=True)
try:
    for host in sys.argv[1:]:
        for version in "4", "6":
            target = "%s:9000:%s" % (host, version)
            for _ in range(100):
                run = subprocess.run([sys.executable, here + "/peers_client.py", target], capture_output=True, text=True)
                if "ECONNREFUSED" in run.stderr or "[Errno 111]" in run.stderr:  # the server starts
                    time.sleep(0.1)
                    continue
                break
            if "[Errno %d]" % errno.EHOSTUNREACH in run.stderr:
                print(json.dumps({"target": target, "refused": "EHOSTUNREACH"}), flush=True)
            else:
                print(run.stdout or json.dumps({"target": target, "refused": run.stderr}), end="" if run.stdout else "\n", flush=True)
    with tempfile.TemporaryDirectory() as www:
        with open(www + "/page", "w") as f:
            f.write("served")
        web = subprocess.Popen([sys.executable, "-m", "http.server", "9002", "--directory", www], stderr=subprocess.DEVNULL)
        try:
            url = "http://%s:9002/page" % sys.argv[1]
            curl = subprocess.run(["curl", "-sS", "--fail", "--retry", "50", "--retry-delay", "1", "--retry-connrefused", "--max-time", "20", url], capture_output=True, text=True)
            print(json.dumps({"curl": curl.stdout or curl.stderr}), flush=True)
        finally:
            web.kill()
    time.sleep(0.5)  # for the sample that sees native connections
finally:
    server.kill()
