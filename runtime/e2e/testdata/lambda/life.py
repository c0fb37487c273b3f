# SPDX-License-Identifier: Apache-2.0
"""A guest that tells what it finds in its sandbox, and leaves a lot behind.

Whoever connects to port 9000 is told, as JSON, and may say what is to be done:
"end" leaves files, a listening daemon and others behind, and ends; anything else is a
host whose port 9000 is asked first.
"""
import json
import os
import socket
import subprocess
import sys


def processes():
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, os.getpid(), os.getppid()):
            with open(f"/proc/{name}/cmdline") as f:
                found.append(f.read().replace("\0", " "))
    return found


def leave():
    os.makedirs("/tmp/left/closed/below")
    os.chmod("/tmp/left/closed", 0)
    with open("/tmp/dump", "w") as f:
        f.write("x" * 10_000_000)
    subprocess.Popen(["sleep", "1000"], env={}, start_new_session=True)
    if os.fork() == 0:  # a daemon that keeps the listener
        os.setsid()
        if os.fork() == 0:
            os.execve(sys.executable, ["kept", "-c", "import time; time.sleep(1000)"], {})
        os._exit(0)


state = {
    "id": os.environ["BOXER_NODE_ID"],
    "tmp": [name for name in os.listdir("/tmp") if os.path.join("/tmp", name) != os.environ["BOXER_DIR"]],
    "processes": processes(),
    "supervisor": os.getppid(),
    "files": len(os.listdir(f"/proc/{os.getppid()}/fd")),
    "libc": os.confstr("CS_GNU_LIBC_VERSION"),
}
listener = socket.create_server(("", 9000))
os.set_inheritable(listener.fileno(), True)
while True:
    conn, _ = listener.accept()
    said = conn.makefile().readline().strip()
    if said and said != "end":
        with socket.create_connection((said, 9000)) as peer:
            peer.sendall(b"\n")
            state["asked"] = peer.makefile().read().strip()
    conn.sendall(json.dumps(state).encode())
    conn.close()
    if said == "end":
        leave()
        sys.exit(0)
