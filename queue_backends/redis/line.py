"""One connection for many commands at a time: they are sent as they come, and answered in that order.

Taking a connection from the driver's pool, and reading through its stream, costs more than everything else that a
round trip does: 50 of 60 µs (measured). So the driver connects, greets and authenticates; then we speak on that
connection ourselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import hiredis
import redis.exceptions

_NO_REPLY_YET = object()
_CLOSED = "Connection closed by server."
_CLIENT_ID = b"*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n"


class Receiver(Protocol):
    """Whom replies are for."""

    @property
    def is_awaited(self) -> bool:
        """Whether anybody still waits for them."""
        ...

    def take(self, reply: Any) -> bool:
        """A reply or an error; called while the connection is read. Returns whether it was the last."""
        ...

    def lose(self, error: Exception) -> None:
        """No further reply will come."""
        ...


class _Call:
    """Commands that were sent together, and their replies as they come."""

    __slots__ = ("arrived", "replies", "wanted")

    def __init__(self, loop: asyncio.AbstractEventLoop, wanted: int) -> None:
        self.wanted = wanted
        self.replies: list[Any] = []
        """Errors of the server's among them."""
        self.arrived: asyncio.Future[None] = loop.create_future()
        """Done when all are there, or none will come any more. Replies are kept even if whoever waits is cancelled."""

    @property
    def is_awaited(self) -> bool:
        return not self.arrived.done()

    def take(self, reply: Any) -> bool:
        self.replies.append(reply)
        if len(self.replies) < self.wanted:
            return False
        if not self.arrived.done():  # whoever waited may have been cancelled
            self.arrived.set_result(None)
        return True

    def lose(self, error: Exception) -> None:
        if not self.arrived.done():
            self.arrived.set_exception(error)
            self.arrived.exception()  # seen, even if whoever waited is cancelled before it looks

    @property
    def is_answered(self) -> bool:
        """Whether all replies are there."""
        return len(self.replies) == self.wanted

    def answer(self) -> list[Any]:
        """The replies. An error among them is raised."""
        for reply in self.replies:
            if isinstance(reply, Exception):
                raise reply
        return self.replies


class Link(asyncio.Protocol):
    """A connection that was taken over from the driver."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.is_open = True
        """Whether it takes further commands."""
        self.is_lost = False
        self._loop = asyncio.get_running_loop()
        self._transport = connection._writer.transport  # noqa: SLF001 - the driver has no public way to it
        self._former = self._transport.get_protocol()
        self._replies = hiredis.Reader(
            protocolError=redis.exceptions.InvalidResponse,
            replyError=connection._parser.parse_error,  # noqa: SLF001 - which error code is which exception
            notEnoughData=_NO_REPLY_YET,
        )
        self._waiting: deque[Receiver] = deque()
        self.client_id: _Call | None = None
        """What the server calls this connection, once it was asked."""
        self._has_room: asyncio.Future[None] | None = None
        self._news = _poll_of(self._transport)
        self._transport.set_protocol(self)
        if self._transport.is_closing():  # nobody will tell
            self.connection_lost(None)

    def is_usable(self) -> bool:
        """Whether it takes commands. A server has nothing to say unasked but that it hangs up, and the event loop may
        not know yet."""
        if self.is_open and not self._waiting and self._news is not None and self._news.poll(0):
            self.close()
        return self.is_open

    async def send(self, packed: bytes, replies: int) -> _Call:
        """The call, which so many replies will answer."""
        while self._has_room is not None:
            await asyncio.shield(self._has_room)
        if not self.is_open:
            raise redis.exceptions.ConnectionError(_CLOSED)
        call = _Call(self._loop, replies)
        self.send_now(packed, call)
        return call

    def takes_at_once(self) -> bool:
        """Whether a command can be sent without waiting."""
        return self._has_room is None and self.is_usable()

    def send_now(self, packed: bytes, receiver: Receiver) -> None:
        """Send it behind all that was sent before, over a link that `takes_at_once`."""
        self._waiting.append(receiver)
        self._transport.write(packed)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        try:
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not _NO_REPLY_YET:
                receiver = self._waiting.popleft()
                if not receiver.take(reply):
                    self._waiting.appendleft(receiver)
        except (redis.exceptions.InvalidResponse, IndexError):  # no server of ours talks like this
            self.close()
        if not self.is_open:
            self.close_unless_awaited()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop."""
        self.is_open, self.is_lost = False, True
        self.resume_writing()
        while self._waiting:
            self._waiting.popleft().lose(redis.exceptions.ConnectionError(str(error) if error else _CLOSED))
        self._former.connection_lost(error)

    def pause_writing(self) -> None:
        """Called by the event loop: more is being sent than the server takes."""
        if self._has_room is None:
            self._has_room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Called by the event loop."""
        has_room, self._has_room = self._has_room, None
        if has_room is not None and not has_room.done():
            has_room.set_result(None)

    def close(self) -> None:
        """Use it no more. Whoever waits for a reply is told that the connection is lost."""
        self.is_open = False
        if not self.is_lost:
            self._transport.abort()

    def let_go(self) -> None:
        """`close_unless_awaited`, from any thread."""
        self.is_open = False
        with contextlib.suppress(RuntimeError):  # its event loop is closed, and so is the connection
            self._loop.call_soon_threadsafe(self.close_unless_awaited)

    def close_unless_awaited(self) -> None:
        """Take no further commands, and close once all that were sent are answered, or waited for no more."""
        self.is_open = False
        if not any(receiver.is_awaited for receiver in self._waiting):
            self.close()


def _poll_of(transport: asyncio.Transport) -> select.poll | None:
    """Tells whether there is something to read. None under TLS, which has messages of its own."""
    if transport.get_extra_info("ssl_object") is not None or not hasattr(select, "poll"):
        return None
    news = select.poll()
    news.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return news


class CallAlone:
    """A call that has a connection for itself. At the end of its `with` block the connection is closed, unless the call
    was answered."""

    def __init__(self, link: Link, call: _Call) -> None:
        self._link = link
        self._call = call

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._call.is_answered:
            self._link.close()

    @property
    def is_answered(self) -> bool:
        """Whether all replies are there."""
        return self._call.is_answered

    async def replies(self) -> list[Any]:
        """Of all its commands. An error of any is raised."""
        await self._call.arrived
        return self._call.answer()

    async def heard_out(self, within_s: float) -> list[Any] | None:
        """The replies, for who was cancelled in `replies`; None if they do not come."""
        call = self._call
        if not call.is_answered and not self._link.is_lost:
            call.arrived = asyncio.get_running_loop().create_future()
            await asyncio.wait([call.arrived], timeout=within_s)
        if not call.is_answered or any(isinstance(reply, Exception) for reply in call.replies):
            return None
        return call.replies


class Line:
    """A link that is made when it is needed, and made anew when it is lost. Errors are the driver's own."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._link: Link | None = None
        self._links: list[Link] = []
        """This one, and former ones that may have to answer yet."""
        self._opening = asyncio.Lock()
        self._drops = 0

    def link_at_once(self) -> Link | None:
        """The link, if a command can be sent over it without waiting."""
        link = self._link
        return link if link is not None and link.takes_at_once() else None

    async def call(self, *args: Any) -> Any:
        """One command's reply."""
        link = self._link
        if link is None or not link.is_usable():
            link = await self._open()
        call = await link.send(hiredis.pack_command(args), 1)
        await call.arrived
        return call.answer()[0]

    async def call_alone(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The replies of several commands, for a line that nobody else uses meanwhile: if this is cancelled, so is what
        the server still does, as far as it can be. An error of any is raised."""
        with await self.begin_alone(commands) as call:
            return await call.replies()

    async def begin_alone(self, commands: Sequence[Sequence[Any]]) -> CallAlone:
        """As `call_alone`, for who wants to hear the server out even when cancelled."""
        link = self._link
        if link is None or not link.is_usable():
            link = await self._open()
        try:
            if link.client_id is None:
                link.client_id = await link.send(_CLIENT_ID, 1)
            packed = b"".join([hiredis.pack_command(tuple(command)) for command in commands])
            return CallAlone(link, await link.send(packed, len(commands)))
        except BaseException:
            link.close()
            raise

    @property
    def client_id(self) -> int | None:
        """What the server calls the connection of `call_alone`; None: there is none, or it may not tell."""
        known = self._link.client_id if self._link is not None and self._link.is_open else None
        if known is None or not known.replies or isinstance(known.replies[0], Exception):
            return None
        return int(known.replies[0])

    async def _open(self) -> Link:
        async with self._opening:
            while (link := self._link) is None or not link.is_usable():
                await self._give_back()
                drops = self._drops
                made = Link(await self._pool.get_connection())
                self._links.append(made)
                if drops == self._drops:
                    self._link = made
                else:  # it was made before somebody found out
                    made.close_unless_awaited()
            return link

    async def _give_back(self) -> None:
        """Return to the pool what is used no more."""
        for link in [link for link in self._links if not link.is_open]:
            link.close_unless_awaited()
            if link.is_lost:
                self._links.remove(link)
                try:
                    await link.connection.disconnect(nowait=True)
                finally:
                    await self._pool.release(link.connection)

    def drop(self) -> None:
        """The present connection leads to the wrong place, or nowhere: what was sent may be answered yet, and the next
        call makes a new one. May be called from another thread."""
        self._drops += 1
        link, self._link = self._link, None
        if link is not None:
            link.let_go()

    async def close(self) -> None:
        """Hang up."""
        self._drops += 1
        for link in self._links:
            link.close()
        await asyncio.sleep(0)  # until the event loop has told the links
        async with self._opening:
            await self._give_back()
