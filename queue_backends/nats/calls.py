"""Requests and what comes back."""

from __future__ import annotations

import asyncio

import msgspec
from nats.aio.msg import Msg

from queue_backends.nats.refusals import ApiError, refusal


class _Reply(msgspec.Struct):
    error: ApiError | None = None


_decode_reply = msgspec.json.Decoder(_Reply).decode


class Call:
    """A request that waits for its reply, or for several up to the one that has a status."""

    __slots__ = ("future", "messages", "most", "subject")

    def __init__(self, subject: str, messages: list[Msg] | None = None, most: int = 0) -> None:
        self.subject = subject
        self.messages = messages
        self.most = most
        self.future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

    def receive(self, message: Msg) -> None:
        """One answer."""
        if self.messages is None or status_of(message):
            if not self.future.done():
                self.future.set_result(message)
        else:
            self.messages.append(message)
            if len(self.messages) == self.most and not self.future.done():
                self.future.set_result(message)

    def fail(self, error: Exception) -> None:
        """There will be no answer."""
        if not self.future.done():
            self.future.set_exception(error)


def status_of(message: Msg) -> str:
    """A reply's status, such as `404`; empty for one that carries something."""
    return message.headers.get("Status", "") if message.headers else ""


def check_reply(data: bytes) -> None:
    """Raise what an error in a reply means."""
    if b'"error"' in data[:300]:
        reply = _decode_reply(data)
        if reply.error is not None:
            raise refusal(reply.error)
