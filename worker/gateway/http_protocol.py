"""The server's HTTP protocol, with one thing more: an application can cut a connection whose client takes nothing.

The library only ever closes a connection in order, which waits for the client to take what was sent to it.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, cast

from worker.gateway.sse import ABORT_EXTENSION

if TYPE_CHECKING:
    import asyncio


def http_protocol() -> type[asyncio.Protocol]:
    """The quickest protocol that is installed."""
    if importlib.util.find_spec("httptools") is not None:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        from worker.gateway.plain_parser import plainly_parsed

        return _with_abort(plainly_parsed(HttpToolsProtocol))
    from uvicorn.protocols.http.h11_impl import H11Protocol

    return _with_abort(H11Protocol)


def _with_abort(kind: type[Any]) -> type[asyncio.Protocol]:
    class Protocol(kind):  # type: ignore[misc] # one of two classes of the library that have no common one
        """Tells the application how to cut its connection."""

        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            app: Any = self.__dict__["app"]

            async def with_abort(scope: Any, receive: Any, send: Any) -> None:
                scope.setdefault("extensions", {})[ABORT_EXTENSION] = self._abort
                await app(scope, receive, send)

            self.__dict__["app"] = with_abort

        def _abort(self) -> None:
            if self.transport is not None:
                self.transport.abort()

    return cast("type[asyncio.Protocol]", Protocol)
