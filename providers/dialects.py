"""Servers that take only a part of a protocol: asked once for all of it, then for what they take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from providers.errors import ProviderError

_D = TypeVar("_D")
_T = TypeVar("_T")

_MOST_REMEMBERED = 1_024


class Dialects(Generic[_D]):
    """Which dialect of a protocol a server takes, model by model.

    `relaxed` gives the dialect to try after a refusal, or None if the refusal is about something else; each step has to
    take something away. `lasting` gives what of a dialect is worth remembering.
    """

    def __init__(
        self, relaxed: Callable[[_D, ProviderError], _D | None], lasting: Callable[[_D], _D] = lambda dialect: dialect
    ) -> None:
        self._relaxed = relaxed
        self._lasting = lasting
        self._known: dict[tuple[str, str], _D] = {}

    def known(self, server: tuple[str, str], first: _D) -> _D:
        """The dialect that a server takes as far as it is known; else `first`."""
        return self._known.get(server, first)

    async def ask(self, server: tuple[str, str], first: _D, attempt: Callable[[_D], Awaitable[_T]]) -> _T:
        """Ask, and ask again with less of the protocol where the server (address and model) refuses a part of it.

        `first` is the dialect for a server that is not known yet. Raises what `attempt` raises.
        """
        dialect = self.known(server, first)
        while True:
            try:
                answer = await attempt(dialect)
            except ProviderError as error:
                easier = self._relaxed(dialect, error)
                if easier is None:
                    raise
                dialect = easier
            else:
                self._remember(server, first, self._lasting(dialect))
                return answer

    def _remember(self, server: tuple[str, str], first: _D, dialect: _D) -> None:
        if dialect == self.known(server, first):
            return
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[server] = dialect
