#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Answers with what it is, what a child of its own kind says, and a child of the system's."""
import ctypes, hashlib, http.server, json, os, sqlite3, ssl, subprocess, sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = {
            "version": "%d.%d" % sys.version_info[:2],
            "libc": os.confstr("CS_GNU_LIBC_VERSION"),
            "exe": os.readlink("/proc/self/exe"),
            "argv": sys.argv[1:],
            "ssl": ssl.OPENSSL_VERSION.split()[0],
            "child": subprocess.check_output([sys.executable, "-c", "import os; print(os.confstr('CS_GNU_LIBC_VERSION'))"], text=True).strip(),
            "system": subprocess.check_output("echo $((6*7))", shell=True, text=True).strip(),
            "peer": self.client_address[0],
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
