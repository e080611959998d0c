"""The body of an answer, as it comes in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class AnswerBody(Protocol):
    """Pieces of a body."""

    async def read(self) -> bytes:
        """What has come, at least one byte; empty at the end. Raises what the driver raises."""
        ...

    def after_read(self, size: int) -> None:
        """To be told after each read how many bytes it brought."""
        ...

    def hurry(self) -> None:
        """What comes now is waited for, and shall be read at once."""
        ...


class IteratedBody:
    """A body that the HTTP client hands out, such as one that it unpacks."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    async def read(self) -> bytes:
        """As `AnswerBody.read`."""
        while (chunk := await anext(self._chunks, None)) == b"":
            continue
        return chunk or b""

    def after_read(self, size: int) -> None:
        """Nothing follows from it."""

    def hurry(self) -> None:
        """It is read at once anyway."""
