"""Reading a request's body: at most so many bytes, within so long."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message, Receive

from worker.gateway.problem import Problem


class BoundedReceive:
    """An ASGI `receive` whose body is bounded, whoever reads it."""

    def __init__(self, receive: Receive, headers: Headers, *, max_bytes: int, limit_s: float) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._limit_s = limit_s
        self._bytes = 0
        self._deadline: float | None = None
        self._is_whole = False
        declared_bytes = headers.get("content-length", "")
        self._expects_continue = "expect" in headers
        self._declared = int(declared_bytes) if declared_bytes.isascii() and declared_bytes.isdigit() else 0

    async def __call__(self) -> Message:
        """The next piece. Raises `Problem` 413 and 408."""
        if self._is_whole:
            return await self._receive()  # only its leaving can come now, at any time
        loop = asyncio.get_running_loop()
        if self._deadline is None:
            self._deadline = loop.time() + self._limit_s
        self._check(self._declared)
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise Problem(
                408, f"the body did not come within {self._limit_s:g} s", code="body_too_slow", headers=_CLOSE
            ) from None
        self._bytes += len(message.get("body", b""))
        self._check(self._bytes)
        self._is_whole = not message.get("more_body", False)
        return message

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            headers = _CLOSE if self._expects_continue else {}
            raise Problem(
                413, f"the body has more than {self._max_bytes} bytes", code="body_too_large", headers=headers
            )


_CLOSE = {"Connection": "close"}
"""What is left of the body does not come, or would take too long."""


async def read_body(request: Request) -> bytes:
    """The whole body of a request that has a `BoundedReceive`."""
    return await request.body()
