# SPDX-License-Identifier: Apache-2.0
"""Counts visits in Redis and says who answered. Knows nothing about Boxer:
it listens on every address and looks its store up by name."""

import socket
import threading

PORT = 8080
STORE = ("store", 6379)
PATIENCE = 10  # seconds for one step of a request


def increment(key):
    """INCR over a fresh connection: one command, one line back (RESP)."""
    with socket.create_connection(STORE, timeout=PATIENCE) as redis:
        redis.sendall(f"*2\r\n$4\r\nINCR\r\n${len(key)}\r\n{key}\r\n".encode())
        with redis.makefile("rb") as replies:
            reply = replies.readline().decode().strip()
    if not reply.startswith(":"):
        raise OSError(f"Redis answered {reply!r}")
    return int(reply[1:])


def answer():
    try:
        count = increment("visits")
        return "200 OK", f"{socket.gethostname()} answers: visit {count}\n"
    except OSError as problem:
        return "502 Bad Gateway", f"{socket.gethostname()} has no store: {problem}\n"


def serve(connection):
    """Answers requests, which have no body, until the client closes."""
    with connection, connection.makefile("rb") as requests:
        connection.settimeout(60)
        while True:
            try:
                line = requests.readline(8192)
                if not line:
                    return
                close = b"HTTP/1.0" in line
                while (header := requests.readline(8192)) not in (b"\r\n", b"\n", b""):
                    close = close or header.lower().split() == [b"connection:", b"close"]
                status, body = answer()
                connection.sendall(
                    f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
                    f"Connection: {'close' if close else 'keep-alive'}\r\n\r\n{body}".encode()
                )
                if close:
                    return
            except OSError:
                return  # an idle or broken client


def main():
    listener = socket.create_server(("0.0.0.0", PORT), backlog=128)
    print(f"{socket.gethostname()} listens on port {PORT}", flush=True)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


main()
