# SPDX-License-Identifier: Apache-2.0
"""Both ends of the cases in cases.py.

agent.py serve PORT [MARK]   waits for clients, and for tests that want it to be one
agent.py run HOST PORT CASE...   runs cases against a server; one line of JSON each
agent.py self CASE...      both on this node; without Boxer on loopback
"""
import json
import os
import signal
import socket
import sys
import time
import traceback

import cases
import traps

traps.SUPERVISOR = os.getppid()

LIMIT = 20  # seconds a case may take


class Party:
    """One end of a case: a conversation with the other end, and what was seen."""

    def __init__(self, control, host):
        self.control, self.host = control, host
        self.peer = control.getpeername()[0]
        self.own = control.getsockname()[0]
        self.notes = []

    def send(self, what):
        self.control.sendall(json.dumps(what).encode() + b"\n")

    def recv(self, last=False):
        """Reads no further than one line: the rest may be for another process."""
        line = b""
        while not line.endswith(b"\n"):
            more = self.control.recv(1)
            if not more:
                raise EOFError("the other end is gone")
            line += more
        what = json.loads(line)
        if isinstance(what, dict) and "notes" in what and not last:
            raise EOFError(f"the other end has ended: {what}")
        return what

    def note(self, what, seen):
        self.notes.append([what, seen])


def play(function, party):
    """Runs one end in a process of its own, which cannot disturb the next."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.setpgid(0, 0)
        signal.alarm(LIMIT)
        try:
            function(party)
        except BaseException:
            party.note("exception", traceback.format_exc())
        os.write(writer, json.dumps(party.notes).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as f:
        text = f.read()
    status = os.waitpid(pid, 0)[1]
    try:
        os.killpg(pid, signal.SIGKILL)  # what it left behind
    except OSError:
        pass
    return json.loads(text) if text else [["ended by", signal.Signals(status & 0x7F).name if status & 0x7F else status]]


def case(name):
    return getattr(cases, name, None) or getattr(traps, name)


def attend(control):
    party = Party(control, None)
    what = party.recv()
    if isinstance(what, list):  # a test, which lies in wait on this node
        os.dup2(control.fileno(), 1)
        run(what[0], int(what[1]), what[2:])
        return
    notes = play(case(what).server, party)
    party.send({"notes": notes})


def serve(listener):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        control = listener.accept()[0]
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            attend(control)
            os._exit(0)
        control.close()


def run(host, port, names):
    for name in names:
        began = time.monotonic()
        with socket.create_connection((host, port), timeout=LIMIT) as control:
            control.settimeout(None)
            party = Party(control, host)
            party.send(name)
            seen = {"client": play(case(name).client, party)}
            control.settimeout(LIMIT)
            try:
                while True:  # what a failed client left unread comes first
                    answer = party.recv(last=True)
                    if isinstance(answer, dict) and "notes" in answer:
                        seen["server"] = answer["notes"]
                        break
            except (OSError, EOFError) as e:
                seen["server"] = [["conversation", repr(e)]]
        print(json.dumps({"case": name, "seconds": time.monotonic() - began, "seen": seen}), flush=True)


def main():
    mode = sys.argv[1]
    if mode == "serve":
        serve(socket.create_server(("", int(sys.argv[2])), backlog=64))
    elif mode == "run":
        run(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    elif mode == "self":
        own = os.environ.get("BOXER_NODE_ADDRESS", "127.0.0.1")
        listener = socket.create_server((own, 0), backlog=64)
        server = os.fork()
        if server == 0:
            serve(listener)
        try:
            run(own, listener.getsockname()[1], sys.argv[2:])
        finally:
            os.kill(server, signal.SIGKILL)


main()
