"""Bounds of a connection: how long a request's head may take, how large it may be, and how long a client may take
nothing of its answer.

The server library bounds none of them with its quicker parser.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

HEAD_LIMIT_S: Final = 15.0
MAX_HEAD_BYTES: Final = 32 * 1024
STALL_LIMIT_S: Final = 45.0
"""Longer than event streams wait for a slow client, which end in better order."""

_MOST_DISCARDED_BYTES: Final = 64 * 1024 * 1024
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def bounded(
    kind: type[Any], *, head_limit_s: float = HEAD_LIMIT_S, stall_limit_s: float = STALL_LIMIT_S
) -> type[asyncio.Protocol]:
    """`kind`, one of the server library's protocols, with these bounds."""

    class Bounded(kind):  # type: ignore[misc] # the library's two protocols have no common class
        """Closes connections that send a head too slowly, or one that does not end, or take nothing for too long."""

        _head_timer: asyncio.TimerHandle | None = None
        _stall_timer: asyncio.TimerHandle | None = None
        _head_bytes = 0
        _has_body_left = False
        """A request was answered before its body had come: what still comes is thrown away, and is no head."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self._begin_head()

        def connection_lost(self, error: Exception | None) -> None:
            self._end_head()
            self._end_stall()
            super().connection_lost(error)

        def data_received(self, data: bytes) -> None:
            if self._head_timer is None and not self._has_request():
                self._begin_head()
            super().data_received(data)
            if self._head_timer is None:
                return
            if self._has_request():
                self._end_head()
                return
            self._head_bytes += len(data)
            most = _MOST_DISCARDED_BYTES if self._has_body_left else MAX_HEAD_BYTES
            if self._head_bytes > most and not self.transport.is_closing():
                if not self._has_body_left:
                    self.transport.write(_TOO_LARGE)
                self.transport.close()

        def pause_writing(self) -> None:
            self._begin_stall()
            super().pause_writing()

        def resume_writing(self) -> None:
            self._end_stall()
            super().resume_writing()

        def _begin_stall(self) -> None:
            left = self.transport.get_write_buffer_size()
            self._stall_timer = self.loop.call_later(stall_limit_s, self._has_stalled, left)

        def _end_stall(self) -> None:
            if self._stall_timer is not None:
                self._stall_timer.cancel()
                self._stall_timer = None

        def _has_stalled(self, before: int) -> None:
            if self.transport.get_write_buffer_size() < before:  # slow, but it takes something
                self._begin_stall()
            else:
                self.transport.abort()

        def on_headers_complete(self) -> None:
            self._has_body_left = True
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._has_body_left = False
            self._head_bytes = 0
            super().on_message_complete()

        def _has_request(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _begin_head(self) -> None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(head_limit_s, self._head_is_late)

        def _end_head(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _head_is_late(self) -> None:
            self._head_timer = None
            if not self._has_request() and not self.transport.is_closing():
                self.transport.abort()

    return cast("type[asyncio.Protocol]", Bounded)
