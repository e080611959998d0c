"""What publishing and logging 60-byte pieces costs without Shoal: three hand-written ways.

    --mode one        an awaited PUBLISH for each piece, no log
    --mode pipelined  XADD + PUBLISH of each piece, in pipelines of 64
    --mode joined     64 pieces joined into one text: one XADD + one PUBLISH

Prints `DONE {"per_s"}`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import redis.asyncio as redis

PIECE = "Sixty characters of text, as a model says them, give or take"
JOINED = 64
CHANNEL = "reference:chunks"


async def one(client: redis.Redis) -> int:
    for _ in range(JOINED):
        await client.publish(CHANNEL, PIECE)
    return JOINED


async def pipelined(client: redis.Redis) -> int:
    pipe = client.pipeline(transaction=False)
    for _ in range(JOINED):
        pipe.xadd(CHANNEL, {"chunk": PIECE}, maxlen=10_000)
        pipe.publish(CHANNEL, PIECE)
    await pipe.execute()
    return JOINED


async def joined(client: redis.Redis) -> int:
    text = json.dumps({"content": "".join([PIECE] * JOINED)})
    pipe = client.pipeline(transaction=False)
    pipe.xadd(CHANNEL, {"chunk": text}, maxlen=10_000)
    pipe.publish(CHANNEL, text)
    await pipe.execute()
    return JOINED


MODES: dict[str, Callable[[redis.Redis], Awaitable[int]]] = {"one": one, "pipelined": pipelined, "joined": joined}


async def measure(url: str, mode: str, seconds: float) -> float:
    """Pieces per second."""
    client = redis.from_url(url, socket_timeout=None)
    await MODES[mode](client)
    pieces, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        pieces += await MODES[mode](client)
    rate = pieces / (time.perf_counter() - started)
    await client.aclose()
    return rate


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--mode", choices=sorted(MODES), required=True)
    given = parser.parse_args()
    print("DONE " + json.dumps({"per_s": asyncio.run(measure(given.url, given.mode, 1.0))}), flush=True)
