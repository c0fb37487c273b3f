# SPDX-License-Identifier: Apache-2.0
"""One of many that all connect to all others at once: python3 mesh.py COUNT.

It connects to all at a time that everybody knows, some seconds after the last
one joined, keeps what it has open, and prints what happened.
"""

import asyncio
import datetime
import json
import os
import sys
import time

PORT = 9000
COUNT = int(sys.argv[1])
AT_ONCE = 16


async def serve(reader, writer):
    writer.write(b"!")
    try:
        await reader.read()
    except ConnectionResetError:
        pass  # a caller that found a better way
    writer.close()


def everybody():
    with open(os.environ["BOXER_DIR"] + "/members.json") as file:
        seen = [m for m in json.load(file)["members"] if m["service"] == "mesh"]
    probed = all(m.get("nat_report", {}).get("filtering") for m in seen)
    listening = all(PORT in m.get("listeners", []) for m in seen)
    return seen if len(seen) == COUNT and probed and listening else None


def seconds(stamp):
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return datetime.datetime.fromisoformat(whole + "+00:00").timestamp() + float("0." + (fraction or "0"))


async def connect(address, places, kept, took, failed):
    async with places:
        began = time.time()
        try:
            async with asyncio.timeout(20):
                reader, writer = await asyncio.open_connection(address, PORT)
                kept.append(writer)
                if await reader.readexactly(1) != b"!":
                    raise OSError("another byte")
            took.append(time.time() - began)
        except (OSError, EOFError, TimeoutError) as e:
            failed.append("%s: %r" % (address, e))


async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", PORT, backlog=256)
    while not (members := everybody()):
        await asyncio.sleep(0.2)
    begin = max(seconds(m["since"]) for m in members) + 4 + COUNT / 6
    late = time.time() - begin
    await asyncio.sleep(-late)
    kept, took, failed, places = [], [], [], asyncio.Semaphore(AT_ONCE)
    others = {m["overlay_address"] for m in members} - {os.environ["BOXER_NODE_ADDRESS"]}
    await asyncio.gather(*(connect(a, places, kept, took, failed) for a in others))
    print(json.dumps({"late": late, "begin": begin, "end": time.time(), "made": len(took),
                      "slowest": max(took, default=0), "failed": failed}), flush=True)
    await server.serve_forever()


asyncio.run(main())
