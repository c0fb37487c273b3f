# SPDX-License-Identifier: Apache-2.0
"""Echoes lines on any number of connections: echo.py PORT MARKER."""
import socketserver
import sys


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


Server(("", int(sys.argv[1])), Handler).serve_forever()
