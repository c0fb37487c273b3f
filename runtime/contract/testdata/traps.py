# SPDX-License-Identifier: Apache-2.0
"""Cases for the traps that were found by trying. They say what must be seen."""
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import time

from cases import attempt, child, dial, echo_once, exchange, joined, listener, name, port_of, read, so_error

SUPERVISOR = 0  # this node's, set by the agent
GUEST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest")


class tokens:
    """The server counts what arrives: every connection's first line, once."""

    @staticmethod
    def server(p):
        with listener(backlog=128) as s:
            p.send(port_of(s))
            tokens.collect(p, s, p.recv())

    @staticmethod
    def collect(p, s, expected):
        seen = []
        s.settimeout(10)
        try:
            while len(seen) < expected:
                with s.accept()[0] as c:
                    c.settimeout(10)
                    line = c.makefile().readline().strip()
                    c.sendall(line.encode() + b"\n")
                    seen.append(line)
            s.settimeout(0.3)
            while True:
                s.accept()[0].close()
                seen.append("one too many")
        except OSError as e:
            p.note("then", "none" if isinstance(e, TimeoutError) and len(seen) == expected else repr(e))
        p.note("arrived", len(seen))
        p.note("different", len(set(seen)))


class once(tokens):
    """One blocking connect and one that does not block: exactly two arrive, soon."""

    @staticmethod
    def client(p):
        port = p.recv()
        p.send(2)
        for blocks in True, False:
            with socket.socket() as s, select.epoll() as e:
                s.setblocking(blocks)
                e.register(s, select.EPOLLOUT)
                began = time.monotonic()
                first = attempt(s.connect, (p.peer, port))
                p.note("connect", first)
                while not (events := e.poll(10)) or events[0][1] & select.EPOLLHUP:
                    pass
                p.note("events", events[0][1])
                p.note("SO_ERROR", so_error(s))
                p.note("within 3 s", time.monotonic() - began < 3)
                s.setblocking(True)
                p.note("echo", exchange(s, b"blocks\n" if blocks else b"does not\n"))


class retried(tokens):
    """connect() again while the first has not ended: EALREADY, then once 0 or EISCONN."""

    @staticmethod
    def client(p):
        port = p.recv()
        p.send(1)
        with socket.socket() as s:
            s.setblocking(False)
            p.note("connect", name(s.connect_ex((p.peer, port))))
            p.note("again", name(s.connect_ex((p.peer, port))))
            p.note("writable", len(select.select([], [s], [], 10)[1]))
            p.note("then", [name(s.connect_ex((p.peer, port))) for _ in range(2)])
            s.setblocking(True)
            p.note("echo", exchange(s, b"retried\n"))


class send_timeout(tokens):
    """SO_SNDTIMEO ends a connect with EINPROGRESS; the socket is of use later."""

    @staticmethod
    def client(p):
        port = p.recv()
        p.send(1)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 100_000))
            began = time.monotonic()
            p.note("connect", attempt(s.connect, (p.peer, port)))
            p.note("in time", 0.05 < time.monotonic() - began < 0.9)
            p.note("again", attempt(s.connect, (p.peer, port)))
            p.note("writable", len(select.select([], [s], [], 10)[1]))
            p.note("SO_ERROR", so_error(s))
            p.note("echo", exchange(s, b"late\n"))


class signals(tokens):
    """A signal every millisecond while connecting, with SA_RESTART and without."""

    COUNT = 40
    FLAGS = ("restart", "interrupt")

    @classmethod
    def client(cls, p):
        port = p.recv()
        p.send(cls.COUNT * len(cls.FLAGS))
        for mode in cls.FLAGS:
            done = subprocess.run([GUEST, mode, p.peer, str(port), str(cls.COUNT)], capture_output=True, text=True)
            p.note(mode, done.stdout.strip() or done.stderr)


class signals_slowly(signals):
    COUNT = 1


class cancelled:
    """Threads cancelled in connect and in accept; the sockets go on."""

    @staticmethod
    def server(p):
        done = subprocess.run([GUEST, "cancel-accept"], capture_output=True, text=True, timeout=15)
        p.note("accept", done.stdout.strip() or done.stderr)
        with listener() as s:
            p.send(port_of(s))
            echo_once(s.accept()[0])

    @staticmethod
    def client(p):
        port = p.recv()
        done = subprocess.run([GUEST, "vfork", p.peer, str(port)], capture_output=True, text=True, timeout=15)
        p.note("vfork", done.stdout.strip() or done.stderr)


class held(tokens):
    """The server's supervisor is stopped for a while: a connect that is held waits."""

    COUNT, FROZEN = 1, 1.6

    @classmethod
    def server(cls, p):
        with listener() as s:
            p.send(port_of(s))
            time.sleep(0.3)  # until the port is announced
            stopped = child(cls.freeze)
            tokens.collect(p, s, cls.COUNT)
            joined(stopped)

    @classmethod
    def freeze(cls):
        os.kill(SUPERVISOR, signal.SIGSTOP)
        time.sleep(cls.FROZEN)
        os.kill(SUPERVISOR, signal.SIGCONT)

    @staticmethod
    def wait(p):
        port = p.recv()
        time.sleep(0.8)  # in the midst of it
        return p.peer, port


class held_send_timeout(held):
    @staticmethod
    def client(p):
        address = held.wait(p)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 100_000))
            p.note("connect", attempt(s.connect, address))
            p.note("again", attempt(s.connect, address))
            p.note("writable", len(select.select([], [s], [], 10)[1]))
            p.note("SO_ERROR", so_error(s))
            p.note("echo", exchange(s, b"late\n"))


class held_signals(held):
    COUNT = 2

    @staticmethod
    def client(p):
        host, port = held.wait(p)
        for mode in signals.FLAGS:
            done = subprocess.run([GUEST, mode, host, str(port), "1"], capture_output=True, text=True)
            p.note(mode, done.stdout.strip() or done.stderr)


class held_cancelled(held):
    COUNT = 0

    @staticmethod
    def client(p):
        host, port = held.wait(p)
        done = subprocess.run([GUEST, "cancel-connect", host, str(port)], capture_output=True, text=True)
        p.note("connect", done.stdout.strip() or done.stderr)


class held_for_ever(held):
    """A node that is frozen: the connect ends as it does where nothing answers."""

    COUNT, FROZEN = 0, 5.5

    @staticmethod
    def client(p):
        address = held.wait(p)
        with socket.socket() as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
            p.note("connect", attempt(s.connect, address))
            p.note("SO_ERROR", so_error(s))


class cancelled_slowly(tokens):
    """A thread is cancelled in a connect that takes a second."""

    @staticmethod
    def client(p):
        port = p.recv()
        p.send(0)
        done = subprocess.run([GUEST, "cancel-connect", p.peer, str(port)], capture_output=True, text=True)
        p.note("connect", done.stdout.strip() or done.stderr)


class nowhere:
    """An overlay address that no node has."""

    @staticmethod
    def server(p):
        pass

    @staticmethod
    def client(p):
        for blocks in True, False:
            with socket.socket() as s:
                s.setblocking(blocks)
                began = time.monotonic()
                p.note("connect", attempt(s.connect, ("100.80.200.200", 7000)))
                p.note("at once", time.monotonic() - began < 1)


class deferred(tokens):
    """A TCP_DEFER_ACCEPT listener is woken and has the data at once."""

    @staticmethod
    def server(p):
        with socket.socket() as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
            s.bind(("", 0))
            s.listen(8)
            p.send(port_of(s))
            for _ in range(3):
                p.note("readable", len(select.select([s], [], [], 10)[0]))
                with s.accept()[0] as c:
                    p.note("data", read(c, 5).decode())
                    c.sendall(b"hello")

    @staticmethod
    def client(p):
        port = p.recv()
        for _ in range(3):
            with dial(p, port) as s:
                p.note("echo", exchange(s, b"hello"))


class one_of_four_closed:
    """Connections queued at the closed one go to another, or are reset; none hangs."""

    COUNT = 40

    @classmethod
    def server(cls, p):
        group = [listener(share=True, backlog=64)]
        group += [listener(share=True, backlog=64, port=port_of(group[0])) for _ in range(3)]
        p.send(port_of(group[0]))
        p.recv()
        end = time.monotonic() + 5
        while len(select.select(group, [], [], 0)[0]) < 4 and time.monotonic() < end:
            time.sleep(0.01)
        p.note("all have some", len(select.select(group, [], [], 0)[0]))
        group.pop(0).close()
        p.send("closed")
        while p.control not in (ready := select.select([*group, p.control], [], [], 10)[0]):
            for s in ready:
                with s.accept()[0] as c:
                    c.settimeout(5)
                    try:
                        c.sendall(c.recv(100))
                    except OSError:
                        pass

    @classmethod
    def client(cls, p):
        port, outcomes = p.recv(), []
        waiting = [dial(p, port) for _ in range(cls.COUNT)]
        for s in waiting:
            s.sendall(b"ping")
        p.send("connected")
        p.recv()
        for s in waiting:
            s.settimeout(5)
            try:
                outcomes.append("served" if read(s, 4) == b"ping" else "ended")
            except TimeoutError:
                outcomes.append("hangs")
            except OSError as e:
                outcomes.append("ended" if e.errno in (104, 32) else repr(e))
            s.close()
        p.note("outcomes", set(outcomes) - {"ended"} == {"served"} or outcomes)
        with dial(p, port) as s:
            s.settimeout(5)
            p.note("a new one", exchange(s))
        p.send("done")


class no_descriptors:
    """accept at the limit says EMFILE; the connection is served when there is room."""

    @staticmethod
    def server(p):
        with listener() as s:
            s.setblocking(False)
            p.send(port_of(s))
            select.select([s], [], [], 10)
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            spare = []
            while not attempt(lambda: spare.append(os.dup(0))):
                pass
            watch = select.poll()
            watch.register(s, select.POLLIN)
            for _ in range(20):
                p_ready = watch.poll(5_000)
                seen = attempt(s.accept)
                if seen != "EMFILE" or not p_ready:
                    break
            p.note("at the limit", seen)
            for _ in range(3):  # the connection, and what its hand-over needs for a moment
                os.close(spare.pop())
            watch.poll(5_000)
            c = s.accept()[0]
            for fd in spare:
                os.close(fd)
            c.setblocking(True)
            echo_once(c)

    @staticmethod
    def client(p):
        with dial(p, p.recv()) as s:
            s.settimeout(15)
            p.note("echo", exchange(s))


class stale_signals:
    """Signals that stand for nothing, as of a supervisor that was killed: a guest
    that empties its queue on each edge still finds the connection behind one."""

    COUNT = 10

    @classmethod
    def server(cls, p):
        with listener(backlog=64) as s, select.epoll() as e:
            s.setblocking(False)
            e.register(s, select.EPOLLIN | select.EPOLLET)
            served = 0
            p.send(port_of(s))
            for turn in range(cls.COUNT):
                with socket.socket() as stale:
                    stale.bind(("127.66.9.9", 0))
                    stale.connect((p.own, port_of(s)))
                    p.send("go")
                    p.recv()
                    time.sleep(0.05)  # both are queued, and there is one edge
                    while served <= turn and e.poll(3):
                        while True:
                            try:
                                c = s.accept()[0]
                            except BlockingIOError:
                                break
                            c.setblocking(True)
                            echo_once(c)
                            served += 1
            p.note("served", served)

    @classmethod
    def client(cls, p):
        port, served = p.recv(), 0
        for _ in range(cls.COUNT):
            p.recv()
            with dial(p, port) as s:
                p.send("connected")
                s.settimeout(5)
                try:
                    served += exchange(s)
                except OSError:
                    pass
        p.note("served", served)
