"""A receiver of callbacks: a small HTTP server that remembers what it was told and answers as a test likes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from types import TracebackType
from typing import Any, Self

from msgspec import Struct

from tests.server_process import free_port

WITHIN_S = 30.0


class Told(Struct, frozen=True, kw_only=True):
    """One call."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The JSON."""
        found: dict[str, Any] = json.loads(self.raw)
        return found

    def is_signed_with(self, secret: str) -> bool:
        """As a receiver checks it, by the published format."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.raw
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return self.headers["webhook-signature"] == f"v1,{expected}"


class Receiver:
    """Listens on a port of its own from `start` to `stop`. Answers with `answers` in turn, then with 200."""

    def __init__(self, *answers: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self.answers = list(answers)
        self.told: list[Told] = []
        self.is_silent = False
        self._has_changed = asyncio.Condition()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def calls(self, count: int) -> list[Told]:
        """The calls, once there are so many."""
        async with asyncio.timeout(WITHIN_S), self._has_changed:
            await self._has_changed.wait_for(lambda: len(self.told) >= count)
        return self.told

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
            }
            raw = await reader.readexactly(int(headers.get("content-length", "0")))
            self.told.append(Told(path=head[0].split()[1], headers=headers, raw=raw))
            async with self._has_changed:
                self._has_changed.notify_all()
            if self.is_silent:
                await reader.read()
                return
            answer = self.answers.pop(0) if self.answers else "200 OK"
            status, _, extra = answer.partition("\n")
            extra += "\r\n" * bool(extra)
            text = f"HTTP/1.1 {status}\r\n{extra}Content-Length: 2\r\nConnection: close\r\n\r\nok"
            writer.write(text.encode())
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
