# SPDX-License-Identifier: Apache-2.0
"""The cases: each has two ends, which note what they see. What may differ
between two runs that are both right (addresses, times, who of several) is
not noted, only whether it is as it should be."""
import array
import ctypes
import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)


def name(number):
    return errno.errorcode.get(number, number) if number else 0


def attempt(function, *args):
    """0 or the errno's name."""
    try:
        function(*args)
        return 0
    except OSError as e:
        return name(e.errno) if e.errno else repr(e)


def so_error(s):
    return name(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def listener(address="0.0.0.0", family=socket.AF_INET, backlog=16, port=0, **options):
    s = socket.socket(family)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, options.get("v6only", 0))
    if options.get("share"):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind((address, port))
    s.listen(backlog)
    return s


def port_of(s):
    return s.getsockname()[1]


def dial(p, port):
    s = socket.socket()
    s.connect((p.host, port))
    return s


def plain(address):
    return address.removeprefix("::ffff:")


def echo_once(s):
    """Serves one connection: echoes until its end."""
    with s:
        while data := s.recv(65536):
            s.sendall(data)


def exchange(s, data=b"ping"):
    s.sendall(data)
    return read(s, len(data)) == data


def read(s, n):
    data = b""
    while len(data) < n and (more := s.recv(n - len(data))):
        data += more
    return data


def read_all(s):
    data = b""
    while more := s.recv(65536):
        data += more
    return data


def child(function, *args):
    pid = os.fork()
    if pid == 0:
        try:
            function(*args)
            os._exit(0)
        except BaseException as e:
            os.write(2, f"{function.__name__}: {e!r}\n".encode())
            os._exit(1)
    return pid


def joined(*pids):
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


class Echo:
    """A server of one connection, for cases that are about the client."""

    connections = 1

    @classmethod
    def server(cls, p):
        with listener() as s:
            p.send(port_of(s))
            for _ in range(cls.connections):
                c, peer = s.accept()
                p.note("accept says the peer", plain(peer[0]) == plain(p.peer))
                echo_once(c)


class blocking(Echo):
    @staticmethod
    def client(p):
        with dial(p, p.recv()) as s:
            p.note("own name", s.getsockname()[0] == p.own)
            p.note("peer's name", s.getpeername()[0] == p.peer)
            p.note("echo", exchange(s, os.urandom(300_000)))
            p.note("connect again", attempt(s.connect, s.getpeername()))
            s.shutdown(socket.SHUT_WR)
            p.note("end", s.recv(1) == b"")


class nonblocking:
    @staticmethod
    def server(p):
        with listener() as s:
            s.setblocking(False)
            p.note("accept of none", attempt(s.accept))
            p.send(port_of(s))
            p.note("readable", len(select.select([s], [], [], 10)[0]))
            c = s.accept()[0]
            p.note("accept of no more", attempt(s.accept))
            c.setblocking(True)
            echo_once(c)

    @staticmethod
    def client(p):
        address = (p.peer, p.recv())
        with socket.socket() as s:
            s.setblocking(False)
            p.note("connect", name(s.connect_ex(address)))
            p.note("writable", len(select.select([], [s], [], 10)[1]))
            p.note("SO_ERROR", so_error(s))
            p.note("connect again", [name(s.connect_ex(address)) for _ in range(2)])
            s.setblocking(True)
            p.note("echo", exchange(s))


class poll_events:
    @staticmethod
    def server(p):
        with listener() as s:
            p.send(port_of(s))
            watch = select.poll()
            watch.register(s, select.POLLIN | select.POLLOUT)
            p.note("listener", watch.poll(10_000)[0][1])
            c = s.accept()[0]
            p.note("listener, none left", watch.poll(0))
            watch.unregister(s)
            watch.register(c, select.POLLIN | select.POLLRDHUP)
            p.recv()  # the client has half closed
            time.sleep(0.05)
            p.note("half closed", watch.poll(10_000)[0][1])
            c.shutdown(socket.SHUT_WR)
            p.send("closed")
            p.note("closed", watch.poll(10_000)[0][1])

    @staticmethod
    def client(p):
        with socket.socket() as s:
            watch = select.poll()
            watch.register(s, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
            p.note("fresh", watch.poll(0)[0][1])
            s.setblocking(False)
            s.connect_ex((p.peer, p.recv()))
            p.note("connected", watch.poll(10_000)[0][1])
            s.shutdown(socket.SHUT_WR)
            p.send("half")
            p.recv()
            time.sleep(0.05)
            p.note("both closed", watch.poll(10_000)[0][1])


class epoll_level:
    @staticmethod
    def server(p):
        with listener() as s, select.epoll() as e:
            e.register(s, select.EPOLLIN)
            p.send(port_of(s))
            p.note("events", [e.poll(10)[0][1] for _ in range(3)])
            c = s.accept()[0]
            p.note("after accept", e.poll(0.05))
            echo_once(c)

    @staticmethod
    def client(p):
        with dial(p, p.recv()) as s:
            p.note("echo", exchange(s))


class epoll_edge:
    """Every connection raises an edge; a guest that empties the queue on each
    sees all of them."""

    COUNT = 60

    @classmethod
    def server(cls, p):
        with listener(backlog=8) as s, select.epoll() as e:
            s.setblocking(False)
            e.register(s, select.EPOLLIN | select.EPOLLET)
            p.send(port_of(s))
            served = 0
            while served < cls.COUNT and e.poll(10):
                while True:
                    try:
                        c = s.accept()[0]
                    except BlockingIOError:
                        break
                    c.setblocking(True)
                    echo_once(c)
                    served += 1
            p.note("served", served)
            p.note("no edge is left", e.poll(0.05))

    @classmethod
    def client(cls, p):
        port = p.recv()

        def some(n):
            for _ in range(n):
                with dial(p, port) as s:
                    if not exchange(s):
                        raise OSError("no echo")

        p.note("clients", joined(*[child(some, cls.COUNT // 6) for _ in range(6)]))


class epoll_exclusive:
    """Four processes wait for one listener with EPOLLEXCLUSIVE."""

    COUNT = 60

    @staticmethod
    def worker(s):
        with select.epoll() as e:
            e.register(s, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            while True:
                e.poll()
                try:
                    echo_once(s.accept()[0])
                except BlockingIOError:
                    pass

    @classmethod
    def server(cls, p):
        with listener() as s:
            s.setblocking(False)
            workers = [child(cls.worker, s) for _ in range(4)]
            p.send(port_of(s))
            p.recv()
            for pid in workers:
                os.kill(pid, signal.SIGTERM)

    @classmethod
    def client(cls, p):
        port = p.recv()

        def some(n):
            for _ in range(n):
                with dial(p, port) as s:
                    if not exchange(s):
                        raise OSError("no echo")

        p.note("clients", joined(*[child(some, cls.COUNT // 6) for _ in range(6)]))
        p.send("done")


def wait_for(e, what):
    """The events that come with what; those of a socket not yet connected, and
    of one just written to, are of the moment."""
    seen = 0
    while not seen & what or seen & select.EPOLLHUP:
        events = e.poll(10)
        if not events:
            break
        seen = events[0][1]
    return seen


class epoll_before_connect(Echo):
    """nginx adds the socket before it connects."""

    connections = 2

    @staticmethod
    def client(p):
        address = (p.peer, p.recv())
        for flags in 0, select.EPOLLET:
            with socket.socket() as s, select.epoll() as e:
                s.setblocking(False)
                e.register(s, select.EPOLLIN | select.EPOLLOUT | flags)
                p.note("connect", name(s.connect_ex(address)))
                p.note("events", wait_for(e, select.EPOLLOUT))
                p.note("SO_ERROR", so_error(s))
                s.send(b"x")
                p.note("readable", wait_for(e, select.EPOLLIN))
                p.note("echo", s.recv(10) == b"x")


class accept_processes(epoll_exclusive):
    """Four processes block in accept on one listener."""

    @staticmethod
    def worker(s):
        s.setblocking(True)
        while True:
            echo_once(s.accept()[0])


class accept_threads(epoll_exclusive):
    """Four threads block in accept on one listener."""

    @classmethod
    def worker(cls, s):
        s.setblocking(True)
        threads = [threading.Thread(target=accept_processes.worker, args=[s]) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()


class reuseport:
    """Two listeners on one address, one of them in another process: both serve."""

    @staticmethod
    def answer(s, what):
        while True:
            with s.accept()[0] as c:
                c.sendall(what)

    @classmethod
    def server(cls, p):
        a = listener(share=True)
        b = listener(share=True, port=port_of(a))
        workers = [child(cls.answer, a, b"a"), child(cls.answer, b, b"b")]
        p.send(port_of(a))
        p.recv()
        for pid in workers:
            os.kill(pid, signal.SIGTERM)

    @staticmethod
    def client(p):
        port, by = p.recv(), {}
        for _ in range(64):
            with dial(p, port) as s:
                who = s.recv(1).decode()
                by[who] = by.get(who, 0) + 1
        p.note("by", sorted(by))
        p.note("all", sum(by.values()))
        p.send("done")


class second_listen:
    """listen() again raises the backlog: so many connect before one is accepted."""

    COUNT = 20

    @classmethod
    def server(cls, p):
        with listener(backlog=1) as s:
            port = port_of(s)
            p.note("again", attempt(s.listen, 64))
            p.note("port stays", port_of(s) == port)
            p.send(port)
            p.recv()
            order = []
            for _ in range(cls.COUNT):
                with s.accept()[0] as c:
                    order.append(int(c.recv(10)))
            p.note("all", sorted(order))

    @classmethod
    def client(cls, p):
        port, connected = p.recv(), []
        for i in range(cls.COUNT):
            connected.append(dial(p, port))
            connected[i].sendall(b"%d" % i)
        p.send("connected")
        p.note("served", sum(s.recv(1) == b"" for s in connected))


class accept_order(second_listen):
    """Connections made one after another are accepted in that order."""

    @classmethod
    def server(cls, p):
        with listener(backlog=64) as s:
            p.send(port_of(s))
            p.recv()
            order = []
            for _ in range(cls.COUNT):
                with s.accept()[0] as c:
                    order.append(int(c.recv(10)))
            p.note("order", order)


class backlog_of_two:
    """More connections than the backlog wait, and all are served."""

    COUNT = 12

    @classmethod
    def server(cls, p):
        with listener(backlog=2) as s:
            p.send(port_of(s))
            p.recv()
            time.sleep(0.3)
            for _ in range(cls.COUNT):
                echo_once(s.accept()[0])

    @classmethod
    def client(cls, p):
        port = p.recv()

        def one():
            with dial(p, port) as s:
                if not exchange(s):
                    raise OSError("no echo")

        pids = [child(one) for _ in range(cls.COUNT)]
        p.send("on their way")
        p.note("clients", joined(*pids))


class bind_kinds:
    """Whatever an address is bound by, the port that getsockname shows is reachable."""

    @staticmethod
    def server(p):
        own = os.environ.get("BOXER_NODE_NAME", "localhost")
        mapped = "::ffff:" + p.own
        kinds = [
            (socket.AF_INET, own, p.own), (socket.AF_INET, p.own, p.own), (socket.AF_INET, "0.0.0.0", "0.0.0.0"),
            (socket.AF_INET6, "::", "::"), (socket.AF_INET6, mapped, mapped), (socket.AF_INET6, "::ffff:0.0.0.0", "::ffff:0.0.0.0"),
        ]
        sockets = [listener(address, family) for family, address, _ in kinds]
        for s, (_, _, shown) in zip(sockets, kinds):
            p.note("name", s.getsockname()[0] == shown)
        unbound = socket.socket()
        unbound.listen()
        sockets.append(unbound)
        ports = [port_of(s) for s in sockets]
        p.note("ports differ", len(set(ports)) == len(ports) and 0 not in ports)
        p.note("bound twice", attempt(sockets[0].bind, (p.own, 0)))
        p.note("taken", attempt(listener, p.own, socket.AF_INET, 1, ports[0]))
        p.note("not ours", attempt(listener, "203.0.113.9"))
        p.send(ports)
        for s in sockets:
            c, peer = s.accept()
            p.note("accept says the peer", plain(peer[0]) == plain(p.peer))
            p.note("own name", plain(c.getsockname()[0]) == plain(p.own))
            p.note("mapped", peer[0].startswith("::ffff:"))
            echo_once(c)

    @staticmethod
    def client(p):
        for port in p.recv():
            with dial(p, port) as s:
                p.note("echo", exchange(s))


class own_address:
    """A node reaches itself by its address, its name and loopback."""

    @staticmethod
    def server(p):
        with listener() as s:
            port = port_of(s)
            for i, target in enumerate((p.own, os.environ.get("BOXER_NODE_NAME", "localhost"), "127.0.0.1")):
                c = socket.create_connection((target, port))
                d, peer = s.accept()
                p.note("peer's port", peer[1] == port_of(c))
                if i < 2:
                    p.note("names", [a[0] == p.own for a in (peer, c.getsockname(), c.getpeername(), d.getsockname(), d.getpeername())])
                c.sendall(b"x")
                p.note("data", d.recv(1) == b"x")
                c.close()
                d.close()
        with socket.socket() as s:
            s.bind(("0.0.0.0", 0))
            port = port_of(s)
        with socket.socket() as s:
            p.note("nobody listens", attempt(s.connect, (p.own, port)))

    @staticmethod
    def client(p):
        pass


class own_socket:
    """A socket that connects to itself, both sides opening at once."""

    @staticmethod
    def server(p):
        with socket.socket() as s:
            s.bind((p.own, 0))
            p.note("to its own port", attempt(s.connect, s.getsockname()))
            s.sendall(b"y")
            p.note("hears itself", s.recv(1) == b"y" and s.getpeername() == s.getsockname())

    @staticmethod
    def client(p):
        pass


class half_close:
    @staticmethod
    def server(p):
        with listener() as s:
            p.send(port_of(s))
            with s.accept()[0] as c:
                p.note("until the end", len(read_all(c)))
                c.sendall(bytes(1_000_000))
            with s.accept()[0] as c:
                c.shutdown(socket.SHUT_WR)
                p.note("write after", attempt_pipe(c))
                p.note("after its own end", len(read_all(c)))

    @staticmethod
    def client(p):
        port = p.recv()
        with dial(p, port) as s:
            s.sendall(bytes(500_000))
            s.shutdown(socket.SHUT_WR)
            p.note("after its own end", len(read_all(s)))
        with dial(p, port) as s:
            p.note("end", s.recv(1) == b"")
            s.sendall(bytes(700_000))


def attempt_pipe(s):
    try:
        s.send(b"x")
        return 0
    except BrokenPipeError:
        return "EPIPE"


class resets:
    """A close with SO_LINGER 0, and one with unread data, are resets."""

    @staticmethod
    def server(p):
        with listener() as s:
            p.send(port_of(s))
            c = s.accept()[0]
            c.recv(1)
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            c.close()
            c = s.accept()[0]
            c.recv(1)
            c.close()
            c = s.accept()[0]
            c.sendall(b"x")
            p.recv()
            watch = select.poll()
            watch.register(c, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
            end = time.monotonic() + 10
            while not watch.poll(100)[0][1] & select.POLLERR and time.monotonic() < end:
                pass
            p.note("events", watch.poll(0)[0][1])
            p.note("SO_ERROR", [so_error(c), so_error(c)])
            p.note("read", attempt(c.recv, 1))

    @staticmethod
    def client(p):
        port = p.recv()
        for data in b"x", bytes(1000):
            with dial(p, port) as s:
                s.sendall(data)
                p.note("read", [attempt(s.recv, 1), so_error(s), s.recv(1) == b""])
                p.note("peer's name", attempt(s.getpeername))
                p.note("write", attempt_pipe(s))
        s = dial(p, port)
        s.recv(1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
        p.send("reset")


class refused:
    """At once, and the same socket connects elsewhere afterwards."""

    @staticmethod
    def server(p):
        with socket.socket() as s, listener() as good:
            s.bind(("", 0))  # nobody else can take it
            p.send([port_of(s), port_of(good)])
            echo_once(good.accept()[0])

    @staticmethod
    def client(p):
        bad, good = p.recv()
        with socket.socket() as s:
            began = time.monotonic()
            p.note("connect", attempt(s.connect, (p.peer, bad)))
            p.note("at once", time.monotonic() - began < 1)
            p.note("SO_ERROR", so_error(s))
            p.note("peer's name", attempt(s.getpeername))
            p.note("elsewhere", attempt(s.connect, (p.peer, good)))
            p.note("echo", exchange(s))


class refused_nonblocking:
    @staticmethod
    def server(p):
        with socket.socket() as s:
            s.bind(("", 0))
            p.send(port_of(s))
            p.recv()

    @staticmethod
    def client(p):
        address = (p.peer, p.recv())
        with socket.socket() as s, select.epoll() as e:
            s.setblocking(False)
            e.register(s, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
            e.poll(0)
            began = time.monotonic()
            p.note("connect", name(s.connect_ex(address)))
            p.note("events", [event for _, event in e.poll(10)])
            p.note("at once", time.monotonic() - began < 1)
            p.note("SO_ERROR", [so_error(s), so_error(s)])
            p.note("connect again", name(s.connect_ex(address)))
            p.note("selected", len(select.select([s], [s], [], 10)[1]))
            p.note("connect to hear of it", name(s.connect_ex(address)))
        p.send("done")


class refused_again_and_again:
    """A listener that comes and goes on one port."""

    @staticmethod
    def server(p):
        port = 0
        for _ in range(5):
            s = listener(port=port)
            port = port_of(s)
            p.send(port)
            c = s.accept()[0]
            c.recv(1)
            s.close()
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            c.close()
            p.send("closed")
            p.recv()

    @staticmethod
    def client(p):
        for _ in range(5):
            port = p.recv()
            with dial(p, port) as s:
                s.sendall(b"x")
                p.recv()
            end = time.monotonic() + 5
            with socket.socket() as s:
                s.settimeout(5)
                seen = attempt(s.connect, (p.peer, port))
                # The one stated limit: a listener closed a moment ago.
                while seen != "ECONNREFUSED" and time.monotonic() < end:
                    time.sleep(0.02)
                    with socket.socket() as again:
                        again.settimeout(5)
                        seen = attempt(again.connect, (p.peer, port))
                p.note("closed", seen)
            p.send("next")


class fast_open(Echo):
    """sendto(MSG_FASTOPEN) instead of connect, and TCP_FASTOPEN_CONNECT."""

    connections = 4

    @staticmethod
    def client(p):
        address = (p.peer, p.recv())
        with socket.socket() as s:
            p.note("sent", s.sendto(b"ping", socket.MSG_FASTOPEN, address))
            p.note("echo", read(s, 4).decode())
            p.note("names", [s.getpeername() == address, s.getsockname()[0] == p.own])
        with socket.socket() as s:
            s.setblocking(False)
            seen = attempt(s.sendto, b"ping", socket.MSG_FASTOPEN, address)
            p.note("does not block", seen)
            p.note("writable", len(select.select([], [s], [], 10)[1]))
            p.note("SO_ERROR", so_error(s))
            s.setblocking(True)
            if seen:
                s.sendall(b"ping")
            p.note("echo", read(s, 4).decode())
        for blocks in True, False:
            with socket.socket() as s:
                p.note("option", attempt(s.setsockopt, socket.IPPROTO_TCP, 30, 1))
                s.setblocking(blocks)
                p.note("connect", attempt(s.connect, address) in (0, "EINPROGRESS"))
                p.note("writable", len(select.select([], [s], [], 10)[1]))
                s.setblocking(True)
                p.note("echo", exchange(s))


class fast_open_refused(Echo):
    connections = 0

    @staticmethod
    def client(p):
        p.recv()
        with socket.socket() as s:
            p.note("nobody there", attempt(s.sendto, b"ping", socket.MSG_FASTOPEN, (p.peer, 1)))


class disconnect(Echo):
    """connect(AF_UNSPEC) dissolves a connection; the socket can make another."""

    connections = 2

    @staticmethod
    def client(p):
        port = p.recv()
        with socket.socket() as s:
            for _ in range(2):
                p.note("connect", attempt(s.connect, (p.peer, port)))
                p.note("echo", exchange(s))
                p.note("dissolve", libc.connect(s.fileno(), bytes(16), 16))
                p.note("peer's name", attempt(s.getpeername))


    @classmethod
    def server(cls, p):
        with listener() as s:
            p.send(port_of(s))
            for _ in range(cls.connections):
                c = s.accept()[0]
                p.note("end", attempt(echo_once, c))


class bound_client(Echo):
    """A client that chose its port is seen with it."""

    connections = 2

    @staticmethod
    def client(p):
        port = p.recv()
        for address in "0.0.0.0", p.own:
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind((address, 0))
                mine = port_of(s)
                p.note("connect", attempt(s.connect, (p.peer, port)))
                p.note("name", [s.getsockname()[0] == p.own, port_of(s) == mine])
                p.note("echo", exchange(s))


class inherited_by_fork:
    @staticmethod
    def server(p):
        with listener() as s:
            p.send(port_of(s))

            def accept():
                echo_once(s.accept()[0])

            p.note("accepted in a child", joined(child(accept)))
            c = s.accept()[0]
            p.note("used in a child", joined(child(echo_once, c)))

    @staticmethod
    def client(p):
        address = (p.peer, p.recv())
        with socket.socket() as s:
            p.note("connected in a child", joined(child(s.connect, address)))
            p.note("peer's name", s.getpeername() == address)
            p.note("echo", exchange(s))
        with socket.socket() as s:
            s.connect(address)

            def use():
                if not exchange(s) or s.getpeername() != address:
                    raise OSError("no echo")

            p.note("used in a child", joined(child(use)))


SERVE_FD = """
import os, socket, sys
s = socket.socket(fileno=int(sys.argv[1]))
c, peer = s.accept()
while data := c.recv(100):
    c.sendall(data)
print(peer[0], c.getsockname()[0])
"""
USE_FD = """
import socket, sys
s = socket.socket(fileno=int(sys.argv[1]))
s.sendall(b"hello")
print(s.recv(5).decode(), s.getpeername()[0])
"""
CONNECT_FD = """
import socket, sys
s = socket.socket(fileno=int(sys.argv[1]))
s.connect((sys.argv[2], int(sys.argv[3])))
"""


def python(code, *args, fds=(), **options):
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], pass_fds=fds, capture_output=True, text=True, timeout=15, **options)
    return done.stdout.split() or done.stderr


class inherited_by_exec:
    @staticmethod
    def server(p):
        with listener() as s:
            p.send(port_of(s))
            p.note("accepted after exec", python(SERVE_FD, s.fileno(), fds=[s.fileno()]) == [p.peer, p.own])
            echo_once(s.accept()[0])
            echo_once(s.accept()[0])

    @staticmethod
    def client(p):
        port = p.recv()
        with dial(p, port) as s:
            p.note("echo", exchange(s))
        with dial(p, port) as s:
            p.note("used after exec", python(USE_FD, s.fileno(), fds=[s.fileno()]) == ["hello", p.peer])
        with socket.socket() as s:
            p.note("connected after exec", python(CONNECT_FD, s.fileno(), p.peer, port, fds=[s.fileno()]))
            p.note("echo", exchange(s))


class duplicated:
    @staticmethod
    def server(p):
        s = listener()
        copy = s.dup()
        p.send(port_of(s))
        s.close()
        c = copy.accept()[0]
        d = c.dup()
        c.close()
        p.note("peer's name", d.getpeername()[0] == p.peer)
        echo_once(d)
        high = os.dup2(copy.fileno(), 300)
        copy.close()
        with socket.socket(fileno=high) as s:
            echo_once(s.accept()[0])

    @staticmethod
    def client(p):
        address = (p.peer, p.recv())
        for _ in range(2):
            with socket.socket() as s:
                with s.dup() as copy:
                    p.note("connect", attempt(copy.connect, address))
                p.note("again", attempt(s.connect, address))
                p.note("echo", exchange(s))


class passed:
    """Descriptors passed over SCM_RIGHTS within the node."""

    @staticmethod
    def server(p):
        here, there = socket.socketpair(socket.AF_UNIX)

        def accept():
            s = socket.socket(fileno=socket.recv_fds(there, 1, 1)[1][0])
            c, peer = s.accept()
            socket.send_fds(there, [peer[0].encode()], [c.fileno()])

        pid = child(accept)
        with listener() as s:
            p.send(port_of(s))
            socket.send_fds(here, [b"x"], [s.fileno()])
            peer, fds, _, _ = socket.recv_fds(here, 100, 1)
            p.note("accepted elsewhere", joined(pid))
            c = socket.socket(fileno=fds[0])
            p.note("peer's name", [peer.decode() == p.peer, c.getpeername()[0] == p.peer])
            echo_once(c)

    @staticmethod
    def client(p):
        here, there = socket.socketpair(socket.AF_UNIX)
        address = (p.peer, p.recv())

        def connect():
            s = socket.socket(fileno=socket.recv_fds(there, 1, 1)[1][0])
            s.connect(address)

        pid = child(connect)
        with socket.socket() as s:
            socket.send_fds(here, [b"x"], [s.fileno()])
            p.note("connected elsewhere", joined(pid))
            p.note("names", [s.getpeername() == address, s.getsockname()[0] == p.own])
            p.note("echo", exchange(s))


def close_range(first, last):
    libc.close_range(ctypes.c_uint(first), ctypes.c_uint(last), 0)


class closed_all:
    """Daemons close every descriptor that they do not know, and go on."""

    @staticmethod
    def server(p):
        keep = os.dup2(p.control.fileno(), 100)
        done = os.memfd_create("done")
        os.dup2(done, 101)

        def daemon():
            os.setsid()
            if os.fork():
                os._exit(0)
            close_range(3, 99)
            close_range(102, 0xFFFFFFFF)
            s = listener()
            os.write(keep, f"{port_of(s)}\n".encode())
            echo_once(s.accept()[0])
            close_range(0, 99)
            close_range(102, 0xFFFFFFFF)
            s.detach()
            s = listener()
            os.write(keep, f"{port_of(s)}\n".encode())
            echo_once(s.accept()[0])
            os.write(101, b"done")

        p.note("daemon", joined(child(daemon)))
        end = time.monotonic() + 10
        while not os.pread(done, 4, 0) and time.monotonic() < end:
            time.sleep(0.02)
        p.note("served", os.pread(done, 4, 0).decode())

    @staticmethod
    def client(p):
        def closed(port):
            libc.closefrom(3)
            s = socket.socket()
            s.connect((p.peer, port))
            if not exchange(s):
                raise OSError("no echo")

        p.note("closed all", joined(child(closed, p.recv())))
        p.note("closed all", joined(child(closed, p.recv())))


class without_stdio:
    """Started with 0, 1 and 2 closed, a program's sockets get these numbers."""

    @staticmethod
    def server(p):
        code = (
            "import os, socket\n"
            "keep = os.dup2(100, 50)\nos.close(100)\n"
            "s = socket.create_server(('', 0))\n"
            "os.write(50, b'%d\\n' % s.getsockname()[1])\n"
            "c, peer = s.accept()\n"
            "numbers = [s.fileno(), c.fileno()]\n"
            "while data := c.recv(100):\n c.sendall(data)\n"
            "os.write(101, repr(numbers).encode())\n"
        )
        without_stdio.start(p, code)

    @staticmethod
    def start(p, code, *args):
        report = os.memfd_create("report")
        os.dup2(p.control.fileno(), 100)
        os.dup2(report, 101)

        def run():
            for fd in 0, 1, 2:
                os.close(fd)
            os.set_inheritable(100, True)
            os.set_inheritable(101, True)
            os.execv(sys.executable, [sys.executable, "-c", code, *map(str, args)])

        p.note("status", joined(child(run)))
        p.note("numbers", os.pread(report, 1000, 0).decode())

    @staticmethod
    def client(p):
        code = (
            "import os, socket, sys\n"
            "s = socket.socket()\n"
            "s.connect((sys.argv[1], int(sys.argv[2])))\n"
            "s.sendall(b'x')\n"
            "os.write(101, repr([s.fileno(), s.recv(1), s.getpeername()[0] == sys.argv[1]]).encode())\n"
        )
        without_stdio.start(p, code, p.peer, p.recv())


DIAL = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); s.sendall(b'x'); assert s.recv(1) == b'x'"


class spawned(Echo):
    """Children of posix_spawn, of vfork, of system() and of popen() connect,
    with the environment they were given."""

    connections = 4

    @staticmethod
    def client(p):
        args = [sys.executable, "-c", DIAL, p.host, str(p.recv())]
        pid = os.posix_spawn(args[0], args, os.environ)
        p.note("posix_spawn", joined(pid))
        pid = os.posix_spawn(args[0], args, {"PATH": "/usr/bin"})
        p.note("posix_spawn, fresh environment", joined(pid))
        p.note("subprocess", subprocess.run(args, capture_output=True, text=True, env={}).stderr)
        with os.popen(f"exec env -i {sys.executable} -c \"{DIAL}\" {args[3]} {args[4]} 2>&1") as f:
            p.note("popen", f.read())


OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 7), (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
    (socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000), (socket.SOL_SOCKET, socket.SO_RCVBUF, 60_000),
    (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1), (socket.SOL_SOCKET, socket.SO_RCVLOWAT, 3),
    (socket.SOL_SOCKET, socket.SO_PRIORITY, 3),
    (socket.IPPROTO_IP, socket.IP_TOS, 0x10), (socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno"),
    (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 7)),
    (socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 8, 0)),
    (socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 9, 0)),
    (socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1), (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 12345),
    (socket.IPPROTO_TCP, socket.TCP_LINGER2, 20), (socket.IPPROTO_TCP, socket.TCP_SYNCNT, 3),
    (socket.SOL_SOCKET, socket.SO_BUSY_POLL if hasattr(socket, "SO_BUSY_POLL") else 46, 0),
    (socket.IPPROTO_IP, socket.IP_TTL, 55), (socket.IPPROTO_IP, 10, 0),
    (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1), (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1), (socket.IPPROTO_IP, 24, 0),
]


PATH_OPTIONS = {
    socket.SOL_SOCKET: (socket.SO_SNDBUF, socket.SO_RCVBUF, socket.SO_KEEPALIVE),
    socket.IPPROTO_TCP: (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT),
}


def options_of(s, chosen):
    """Of the chosen options, or of the others but for what depends on the path:
    buffers grow with it, and through a NAT a connection is kept alive."""
    seen = []
    for level, option, value in OPTIONS:
        if not chosen and option in PATH_OPTIONS.get(level, ()):
            continue
        size = len(value) if isinstance(value, bytes) else 0
        try:
            got = s.getsockopt(level, option, size) if size else s.getsockopt(level, option)
        except OSError as e:
            got = name(e.errno)
        seen.append([level, option, got.hex() if isinstance(got, bytes) else got])
    return seen


def set_options(s):
    return [attempt(s.setsockopt, *option) for option in OPTIONS]


class options_kept(Echo):
    """What is set before connect is set after."""

    connections = 2

    @staticmethod
    def client(p):
        port = p.recv()
        for change in set_options, lambda s: None:
            with socket.socket() as s:
                change(s)
                s.connect((p.peer, port))
                p.note("options", options_of(s, change is set_options))
                p.note("echo", exchange(s))


class options_inherited:
    """What is set on a listener is set on what it accepts."""

    @staticmethod
    def server(p):
        for change in set_options, lambda s: None:
            with socket.socket() as s:
                change(s)
                s.bind(("", 0))
                s.listen()
                p.send(port_of(s))
                c = s.accept()[0]
                p.note("options", options_of(c, change is set_options))
                p.note("flags", [os.get_blocking(c.fileno()), os.get_inheritable(c.fileno())])
                echo_once(c)

    @staticmethod
    def client(p):
        for _ in range(2):
            with dial(p, p.recv()) as s:
                p.note("echo", exchange(s, b"long enough"))


class options_inherited_late(options_inherited):
    """Set on the listener after the connection came, they are not inherited."""

    @staticmethod
    def server(p):
        for _ in range(2):
            with listener() as s:
                p.send(port_of(s))
                select.select([s], [], [], 10)
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                c = s.accept()[0]
                p.note("NODELAY", c.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                echo_once(c)


class mapped:
    """v4-mapped sockets, as Java's always are."""

    @staticmethod
    def server(p):
        with listener("::", socket.AF_INET6) as s:
            p.send(port_of(s))
            for _ in range(2):
                c, peer = s.accept()
                p.note("peer", [peer[0] == "::ffff:" + plain(p.peer), c.getpeername()[0] == peer[0]])
                p.note("own", c.getsockname()[0] == "::ffff:" + plain(p.own))
                echo_once(c)

    @staticmethod
    def client(p):
        port = p.recv()
        with socket.socket(socket.AF_INET6) as s:
            s.connect(("::ffff:" + p.peer, port))
            p.note("names", [s.getpeername()[0] == "::ffff:" + p.peer, s.getsockname()[0] == "::ffff:" + p.own])
            p.note("echo", exchange(s))
            p.note("again", attempt(s.connect, ("::ffff:" + p.peer, port)))
        with dial(p, port) as s:
            p.note("echo", exchange(s))


class v6only:
    """Sockets that do only IPv6 reach nobody, and are reached by nobody."""

    @staticmethod
    def server(p):
        with listener("::", socket.AF_INET6, v6only=1) as s:
            p.send(port_of(s))
            p.recv()
            s.setblocking(False)
            p.note("accept", attempt(s.accept))

    @staticmethod
    def client(p):
        port = p.recv()
        with socket.socket() as s:
            p.note("to one", attempt(s.connect, (p.peer, port)))
        with socket.socket(socket.AF_INET6) as s:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            p.note("from one", attempt(s.connect, ("::ffff:" + p.peer, port)))
        with socket.socket(socket.AF_INET6) as s:
            p.note("bound elsewhere", [attempt(s.bind, ("::1", 0)), attempt(s.connect, ("::ffff:" + p.peer, port))])
        p.send("done")


class datagrams:
    """Datagram sockets are the kernel's alone."""

    @staticmethod
    def server(p):
        with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
            a.bind(("127.0.0.1", 0))
            p.note("connect", attempt(b.connect, a.getsockname()))
            b.send(b"x")
            data, peer = a.recvfrom(10)
            p.note("received", [data == b"x", peer == b.getsockname()])
            p.note("names", [a.getsockname()[0], b.getpeername() == a.getsockname()])
            p.note("accept", attempt(a.accept))
            p.note("listen", attempt(a.listen))

    @staticmethod
    def client(p):
        pass


class both_ways:
    """Much data in both directions at once."""

    SIZE = 8_000_000

    @classmethod
    def flood(cls, p, s):
        writer = threading.Thread(target=lambda: (s.sendall(bytes(cls.SIZE)), s.shutdown(socket.SHUT_WR)))
        writer.start()
        p.note("received", len(read_all(s)))
        writer.join()

    @classmethod
    def server(cls, p):
        with listener() as s:
            p.send(port_of(s))
            with s.accept()[0] as c:
                cls.flood(p, c)

    @classmethod
    def client(cls, p):
        with dial(p, p.recv()) as s:
            cls.flood(p, s)


class peek:
    """What asks the kernel about the stream."""

    @staticmethod
    def server(p):
        with listener() as s:
            p.send(port_of(s))
            with s.accept()[0] as c:
                p.note("peek", [read_peek(c), read(c, 5).decode()])
                p.note("not there yet", attempt(c.recv, 1, socket.MSG_DONTWAIT))
                c.settimeout(0.05)
                p.note("time-out", attempt(c.recv, 1))
                p.send("on")
                c.setblocking(True)
                p.note("all of it", len(c.recv(100_000, socket.MSG_WAITALL)))

    @staticmethod
    def client(p):
        with dial(p, p.recv()) as s:
            s.sendall(b"hello")
            p.recv()
            s.sendall(bytes(100_000))
            p.note("end", s.recv(1) == b"")


def read_peek(c):
    while len(data := c.recv(5, socket.MSG_PEEK)) < 5:
        time.sleep(0.01)
    return data.decode()


class urgent:
    @staticmethod
    def server(p):
        with listener() as s:
            p.send(port_of(s))
            with s.accept()[0] as c:
                p.note("exceptional", len(select.select([], [], [c], 5)[2]))
                p.note("urgent", attempt(c.recv, 1, socket.MSG_OOB))
                p.note("stream", read(c, 4).decode())

    @staticmethod
    def client(p):
        with dial(p, p.recv()) as s:
            s.send(b"ab")
            s.send(b"!", socket.MSG_OOB)
            s.send(b"cd")
            s.shutdown(socket.SHUT_WR)
            s.recv(1)


class listener_shut:
    """shutdown() of a listener ends accept with EINVAL and refuses new ones."""

    @staticmethod
    def server(p):
        s = listener()
        port = port_of(s)
        seen = []
        t = threading.Thread(target=lambda: seen.append(attempt(s.accept)))
        t.start()
        time.sleep(0.1)
        s.shutdown(socket.SHUT_RD)
        t.join(5)
        p.note("accept", seen)
        time.sleep(0.6)  # until nobody is told otherwise
        p.send(port)
        p.recv()
        p.note("listens again", attempt(s.listen, 5))
        p.send(port_of(s))
        echo_once(s.accept()[0])

    @staticmethod
    def client(p):
        port = p.recv()
        with socket.socket() as s:
            s.settimeout(5)
            p.note("connect", attempt(s.connect, (p.peer, port)))
        p.send("refused")
        with dial(p, p.recv()) as s:
            p.note("echo", exchange(s))


class accept_timeout:
    """SO_RCVTIMEO of a listener bounds accept."""

    @staticmethod
    def server(p):
        with listener() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 100_000))
            began = time.monotonic()
            p.note("accept", attempt(s.accept))
            p.note("took", 0.05 < time.monotonic() - began < 2)
            p.send(port_of(s))
            while True:
                try:
                    c = s.accept()[0]
                    break
                except BlockingIOError:
                    pass
            echo_once(c)

    @staticmethod
    def client(p):
        with dial(p, p.recv()) as s:
            p.note("echo", exchange(s))


class other_user(Echo):
    """A guest that takes another root directory and another user after it started."""

    connections = 3

    @classmethod
    def server(cls, p):
        with listener() as s:
            p.send(port_of(s))
            for _ in range(cls.connections):
                echo_once(s.accept()[0])
        ports = os.pipe()

        def accept():
            cls.jail()
            with listener() as s:
                os.write(ports[1], str(port_of(s)).encode())
                echo_once(s.accept()[0])

        pid = child(accept)
        p.send(int(os.read(ports[0], 10)))
        p.note("accepted in a jail", joined(pid))

    @staticmethod
    def jail():
        uid, gid = os.getuid(), os.getgid()
        if libc.unshare(0x10000000):  # CLONE_NEWUSER
            return  # a sandbox that denies it
        for file, text in ("setgroups", "deny"), ("uid_map", f"7 {uid} 1"), ("gid_map", f"8 {gid} 1"):
            with open(f"/proc/self/{file}", "w") as f:
                f.write(text)
        os.makedirs("/tmp/jail", exist_ok=True)
        os.chroot("/tmp/jail")
        os.chdir("/")
        os.setresgid(8, 8, 8)
        os.setresuid(7, 7, 7)

    @classmethod
    def client(cls, p):
        port = p.recv()

        def connect():
            with socket.socket() as s:
                s.connect((p.peer, port))
                if not exchange(s):
                    raise OSError("no echo")

        def jailed():
            cls.jail()
            connect()

        def known():
            connect()
            jailed()

        p.note("jailed", joined(child(jailed)))
        p.note("connected before", joined(child(known)))
        port = p.recv()
        with dial(p, port) as s:
            p.note("echo", exchange(s))
