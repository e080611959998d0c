"""A model server that answers with its own name, and lets a test hold calls up: Anthropic's Messages API, streamed."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Self

HELD = "wait"
MEETING = "both"


class NamingServer:
    """Answers every prompt with `name`.

    A prompt with the word `wait` is first answered with a call of a tool, once `go_on` is set. With `is_meeting_place`,
    one with `both` is answered when two of them are here at the same time.
    """

    def __init__(self, name: str, *, is_meeting_place: bool = False) -> None:
        self.name = name
        self.is_meeting_place = is_meeting_place
        self.calls: list[dict[str, Any]] = []
        self.keys: list[str] = []
        """Of all requests; those that are no prompts are answered with an empty list of models."""
        self.held = asyncio.Event()
        """A prompt with `wait` is here."""
        self.go_on = asyncio.Event()
        self._met = asyncio.Event()
        self._waiting = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def url(self) -> str:
        """Its address."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._answered(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))) or b"{}")
        self.keys.append(headers.get("x-api-key", ""))
        if "messages" in body:
            self.calls.append(body)
            answer, kind = _stream(await self._content(body)), "text/event-stream"
        else:
            answer, kind = b'{"data": []}', "application/json"
        status = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(answer)}\r\n\r\n"
        writer.write(status.encode() + answer)
        await writer.drain()
        return True

    async def _content(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = json.dumps(body["messages"][0])
        is_first_turn = len(body["messages"]) == 1
        if HELD in prompt and is_first_turn:
            self.held.set()
            await self.go_on.wait()
            return {"type": "tool_use", "id": "t1", "name": "nothing", "input": {}}
        if self.is_meeting_place and MEETING in prompt:
            self._waiting += 1
            if self._waiting == 2:
                self._met.set()
            await self._met.wait()
        return {"type": "text", "text": self.name}


def _stream(content: dict[str, Any]) -> bytes:
    usage = {"input_tokens": 3, "output_tokens": 2}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    is_text = content["type"] == "text"
    delta = {"type": "text_delta", "text": content["text"]} if is_text else None
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {**content, **({"text": ""} if is_text else {})}},
        *([{"type": "content_block_delta", "index": 0, "delta": delta}] if delta else []),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn" if is_text else "tool_use"},
            "usage": {"output_tokens": 2},
        },
        {"type": "message_stop"},
    ]
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
