"""The body of an answer, as it comes in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeAlias

Take: TypeAlias = Callable[[bytes], bool]
"""Takes a piece of a body, and says whether it wants more."""


class AnswerBody(Protocol):
    """Pieces of a body."""

    async def pour(self, take: Take) -> bool:
        """Give pieces of at least one byte to `take` as they come, until it wants no more; false at the end.

        Raises what the driver raises, and what `take` does.
        """
        ...

    def hurry(self) -> None:
        """What comes now is waited for, and shall be read at once."""
        ...


class IteratedBody:
    """A body that the HTTP client hands out, such as one that it unpacks."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    async def pour(self, take: Take) -> bool:
        """As `AnswerBody.pour`."""
        async for chunk in self._chunks:
            if chunk and not take(chunk):
                return True
        return False

    def hurry(self) -> None:
        """It is read at once anyway."""
