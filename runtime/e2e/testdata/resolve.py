# SPDX-License-Identifier: Apache-2.0
"""Prints the addresses of every name, eight times, as JSON: resolve.py NAME..."""
import json
import socket
import sys

answers = {}
for name in sys.argv[1:]:
    answers[name] = []
    for _ in range(8):
        try:
            answers[name].append([a[4][0] for a in socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)])
        except OSError as e:
            answers[name].append([str(e)])
print(json.dumps(answers))
