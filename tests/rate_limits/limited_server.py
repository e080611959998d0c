"""A model server that enforces rate limits as vendors do, and keeps books of what it let through."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime

import msgspec
from aiohttp import web
from msgspec import Struct

CHARS_PER_TOKEN = 3.6
"""Not what anybody expects: clients have to learn it."""


class VendorRates(Struct, frozen=True, kw_only=True):
    """What the vendor allows; None: any number."""

    requests_per_min: float | None = None
    input_tokens_per_min: float | None = None
    output_tokens_per_min: float | None = None
    concurrent: int | None = None
    capacity_s: float = 10.0
    """What an idle bucket gathers, in seconds of its rate."""


class Bucket:
    """A token bucket that may go below zero where use is only known afterwards."""

    def __init__(self, per_min: float | None, capacity_s: float) -> None:
        self.per_min = per_min
        self.capacity = (per_min or 0.0) / 60 * capacity_s
        self._level = self.capacity
        self._at = time.monotonic()

    def level(self) -> float:
        """What may be used now."""
        now = time.monotonic()
        self._level = min(self._level + (self.per_min or 0.0) / 60 * (now - self._at), self.capacity)
        self._at = now
        return self._level

    def short_s(self, amount: float) -> float:
        """In how many seconds so much could be used; 0: now."""
        if self.per_min is None:
            return 0.0
        return max(min(amount, self.capacity) - self.level(), 0.0) / self.per_min * 60

    def use(self, amount: float) -> None:
        """Take it out."""
        if self.per_min is not None:
            self._level = self.level() - amount


class Call(Struct, frozen=True):
    """A call that was let through."""

    at: float
    tenant: str
    input_tokens: int
    output_tokens: int


class LimitedServer:
    """Answers `POST /v1/messages`; everything runs in the event loop that started it."""

    def __init__(self, rates: VendorRates, *, seed: int = 7, tells_limits: bool = True) -> None:
        self.rates = rates
        self.calls: list[Call] = []
        self.refused: list[float] = []
        self.running = 0
        self.most_running = 0
        self._tells_limits = tells_limits
        self._random = random.Random(seed)
        self._buckets = {
            "requests": Bucket(rates.requests_per_min, rates.capacity_s),
            "input-tokens": Bucket(rates.input_tokens_per_min, rates.capacity_s),
            "output-tokens": Bucket(rates.output_tokens_per_min, rates.capacity_s),
        }
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen on a free loopback port."""
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_post("/v1/messages", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1/messages"

    async def stop(self) -> None:
        """Close everything."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        said = msgspec.json.decode(await request.read())
        input_tokens = max(round(len(said["prompt"]) / CHARS_PER_TOKEN), 1)
        needs = {"requests": 1.0, "input-tokens": input_tokens, "output-tokens": 1.0}
        short_s = max(bucket.short_s(needs[kind]) for kind, bucket in self._buckets.items())
        is_full = self.rates.concurrent is not None and self.running >= self.rates.concurrent
        if short_s > 0 or is_full:
            self.refused.append(time.monotonic())
            return web.Response(
                status=429, headers={**self._headers(), "retry-after-ms": f"{1000 * max(short_s, 0.05):.0f}"}
            )
        self._buckets["requests"].use(1)
        self._buckets["input-tokens"].use(input_tokens)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        headers = self._headers()
        try:
            output_tokens = min(max(round(self._random.lognormvariate(5.3, 0.5)), 1), said["max_tokens"])
            await asyncio.sleep(0.05 + output_tokens / 400)
        finally:
            self.running -= 1
        self._buckets["output-tokens"].use(output_tokens)
        self.calls.append(Call(time.monotonic(), said["tenant"], input_tokens, output_tokens))
        usage = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        return web.json_response({"usage": usage}, headers=headers)

    def _headers(self) -> dict[str, str]:
        if not self._tells_limits:
            return {}
        headers = {}
        for kind, bucket in self._buckets.items():
            if bucket.per_min is not None:
                full_s = (bucket.capacity - bucket.level()) / bucket.per_min * 60
                moment = datetime.fromtimestamp(time.time() + full_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                headers[f"anthropic-ratelimit-{kind}-limit"] = f"{bucket.per_min:.0f}"
                headers[f"anthropic-ratelimit-{kind}-remaining"] = f"{max(bucket.level(), 0):.0f}"
                headers[f"anthropic-ratelimit-{kind}-reset"] = moment
        return headers
