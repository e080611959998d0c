"""A client of the sessions API for tests: requests, and event streams that are read until something is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

WITHIN_S = 30.0


class Event:
    """One server-sent event."""

    def __init__(self, name: str, data: Any, id: str) -> None:  # noqa: A002 - the field's name
        self.name = name
        self.data = data
        self.id = id

    def __repr__(self) -> str:
        return f"<{self.name} {self.data} {self.id}>"


class Events:
    """An event stream that was opened."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.seen: list[Event] = []
        self.comments: list[str] = []
        self._lines = response.aiter_lines()

    async def until(self, is_it: Callable[[Event], bool]) -> list[Event]:
        """The events up to the first that is it, which is the last one returned."""
        found: list[Event] = []
        async with asyncio.timeout(WITHIN_S):
            while True:
                found.append(await self._next())
                self.seen.append(found[-1])
                if is_it(found[-1]):
                    return found

    async def _next(self) -> Event:
        name, data, event_id = "", "", ""
        async for line in self._lines:
            if not line:
                if data:
                    return Event(name, json.loads(data), event_id)
                name = event_id = ""
                continue
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data += value
            elif field == "id":
                event_id = value
            elif line.startswith(":"):
                self.comments.append(line)
        raise AssertionError(f"the stream has ended after {self.seen}")


@asynccontextmanager
async def listening(client: httpx.AsyncClient, path: str, *, last_id: str = "", **params: str) -> AsyncIterator[Events]:
    """The events of a path."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with client.stream("GET", path, headers=headers, params=params) as response:
        if response.status_code != 200:
            await response.aread()
        yield Events(response)


def is_final(event: Event) -> bool:
    """Whether an answer ends with it."""
    return bool(event.data.get("is_final"))


def answer(events: list[Event]) -> str:
    """The answer's text in events of a session."""
    return "".join(each.data["content"] for each in events if each.data.get("type") == "CONTENT")


async def created(client: httpx.AsyncClient, agent: str = "", **fields: Any) -> tuple[str, str]:
    """A new session: its id and that of its conversation."""
    response = await client.post("/v1/sessions", json={"agent": agent, **fields})
    assert response.status_code == 201, response.text
    body = response.json()
    return body["session"]["id"], body["conversations"][0]["id"]


async def said(client: httpx.AsyncClient, session: str, conversation: str, text: str, **headers: str) -> Any:
    """Say something; what the gateway answered."""
    response = await client.post(
        f"/v1/sessions/{session}/conversations/{conversation}/messages", json={"content": text}, headers=headers
    )
    assert response.status_code == 202, response.text
    return response.json()


async def messages(client: httpx.AsyncClient, session: str, conversation: str, **params: Any) -> Any:
    """A page of messages."""
    response = await client.get(f"/v1/sessions/{session}/conversations/{conversation}/messages", params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def idle(client: httpx.AsyncClient, session: str, conversation: str) -> None:
    """Return when nothing is being answered."""
    async with asyncio.timeout(WITHIN_S):
        while (await client.get(f"/v1/sessions/{session}/conversations/{conversation}")).json()["running"]:
            await asyncio.sleep(0.02)
