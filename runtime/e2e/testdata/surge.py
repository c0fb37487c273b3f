# SPDX-License-Identifier: Apache-2.0
"""Holds connections to a service, many until it has many addresses and then few
until it has one again: surge.py SERVICE PORT HIGH LOW ADDRESSES."""
import random
import socket
import sys
import threading
import time

name, port = sys.argv[1], int(sys.argv[2])
high, low, addresses = map(int, sys.argv[3:6])
lock, made, failures = threading.Lock(), 0, []
wanted = high


def resolve():
    return sorted({a[4][0] for a in socket.getaddrinfo(name, port, socket.AF_INET, socket.SOCK_STREAM)})


def talk(connection):
    connection.sendall(b"hello\n")
    if connection.recv(100) != b"hello\n":
        raise OSError("cut short")


def work(number):
    global made
    while number < wanted:
        try:
            with socket.create_connection((random.choice(resolve()), port), timeout=15) as connection:
                talk(connection)
                time.sleep(0.7)
                talk(connection)
            with lock:
                made += 1
        except OSError as e:
            with lock:
                failures.append(str(e))


def until(count):
    end = time.time() + 60
    while len(resolve()) != count and time.time() < end:
        time.sleep(0.1)
    print(time.strftime("%X"), len(resolve()), "addresses", flush=True)


threads = [threading.Thread(target=work, args=(n,)) for n in range(high)]
for t in threads:
    t.start()
until(addresses)
wanted = low
until(1)
time.sleep(3)
wanted = 0
for t in threads:
    t.join()
print(made, "made", len(failures), "failed", *failures[:5], flush=True)
