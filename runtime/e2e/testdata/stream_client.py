# SPDX-License-Identifier: Apache-2.0
"""Sends streams and checks what comes back: stream_client.py HOST PORT CONNECTIONS BYTES AT_ONCE."""
import asyncio
import hashlib
import os
import sys

host, port, connections, size, at_once = sys.argv[1], *map(int, sys.argv[2:])
pids, failures = set(), []


async def one(number):
    reader, writer = await asyncio.open_connection(host, port)
    data = os.urandom(size)
    digest = hashlib.sha256(data)
    writer.write(data)
    await writer.drain()
    writer.write_eof()
    pid, answer = (await reader.readline()).split()
    back = await reader.read(-1)
    writer.close()
    pids.add(pid)
    block = digest.digest() * 2048
    if answer.decode() != digest.hexdigest() or back != (block * (size // len(block) + 1))[:size]:
        raise ValueError(f"connection {number} brought other bytes")


async def guarded(limit, number):
    async with limit:
        try:
            await asyncio.wait_for(one(number), 60)
        except Exception as e:  # reported with all others
            failures.append(f"{number}: {e!r}")


async def main():
    limit = asyncio.Semaphore(at_once)
    await asyncio.gather(*(guarded(limit, i) for i in range(connections)))


asyncio.run(main())
print("processes:", len(pids), "failures:", len(failures), failures[:5])
