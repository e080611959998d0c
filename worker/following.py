"""How a process follows a part of the `StateStore`: it hears of every change, and knows from when on it misses none.

It watches first and reads then, so that no change falls between the two. That a watch has begun only a change can tell
that arrives: for that it writes a key of its own under the prefix, the hello.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Self, cast

import structlog

from queue_backends import BackendUnavailable, QueueError, StateChange, StateStore
from worker.background import BackgroundWork, heed_cancellation

_HELLO_TTL_S = 60.0
_HELLO_AGAIN_S = (0.01, 0.02, 0.05, 0.2, 0.5, 1.0)
_HEARD_LIMIT_S = 20.0
"""A watch that has let nothing be heard for so long is given up, and another one begun."""
_RETRY_S = 0.5

log = structlog.get_logger(__name__)


class Following:
    """Follows all keys under a prefix, over outages of the store, from `start` to `stop`.

    `changed` is told each change, but for the hello. `keep` is run once a watch has begun: it reads everything, says so
    with `has_read`, and goes on to read as often as it likes; it is ended and run again when the watch is.
    """

    def __init__(
        self,
        state: StateStore,
        prefix: str,
        hello: str,
        *,
        what: str,
        changed: Callable[[StateChange], None],
        keep: Callable[[], Awaitable[None]],
    ) -> None:
        """`what` is followed, in the words of the log."""
        self._state = state
        self._prefix = prefix
        self._hello = hello
        self._what = what
        self._changed = changed
        self._keep = keep
        self._follower = BackgroundWork(self._follow, name=what)
        self._loaded = asyncio.Event()
        self._has_complained = False

    def start(self) -> None:
        """Begin to follow."""
        self._follower.start()

    async def stop(self) -> None:
        """Follow no more."""
        await self._follower.stop()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def begin(self, limit_s: float) -> None:
        """Begin to follow, and return when everything has been read. Raises `BackendUnavailable` if that takes longer
        than `limit_s`; then nothing is followed."""
        self.start()
        try:
            async with asyncio.timeout(limit_s):
                await self._loaded.wait()
        except BaseException as error:
            await self.stop()
            if isinstance(error, TimeoutError):
                raise BackendUnavailable(f"the {self._what} could not be read within {limit_s:g} s") from error
            raise

    async def read_again_and_again(self, load: Callable[[], Awaitable[None]], every_s: float) -> None:
        """A `keep` for values whose changes the watch tells: it reads everything now and, in case that somebody deleted
        keys by other means while this process was cut off, once in a while. Endless."""
        while True:
            await load()
            self.has_read()
            await asyncio.sleep(every_s * random.uniform(0.75, 1.25))  # noqa: S311 - so that not all read at once

    async def loaded(self) -> None:
        """Return when everything has been read once."""
        await self._loaded.wait()

    def has_read(self) -> None:
        """Everything was read."""
        self._loaded.set()
        self._has_complained = False

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_one_watch()
            except* QueueError as errors:
                self._complain(errors)
            except* Exception:  # whatever it is, what is known stays and the next try may do better
                log.exception("a part of the state cannot be followed, trying again", part=self._what)
            heed_cancellation()
            await asyncio.sleep(_RETRY_S)

    def _complain(self, errors: BaseExceptionGroup[QueueError]) -> None:
        """Once. That the store is away is said by its backend, for all who use it."""
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not self._has_complained and not isinstance(error, BackendUnavailable):
            self._has_complained = True
            log.warning("a part of the state cannot be followed, trying again", part=self._what, error=str(error))

    async def _follow_one_watch(self) -> None:
        heard = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen(heard), name=f"watch on {self._what}")
            keeping = tasks.create_task(self._read(heard), name=f"readings of {self._what}")
            await asyncio.wait([listening, keeping], return_when=asyncio.FIRST_COMPLETED)
            listening.cancel()
            keeping.cancel()

    async def _listen(self, heard: asyncio.Event) -> None:
        # Every store's watch is an async generator, which has to be closed by whoever leaves it early.
        changes = cast("AsyncGenerator[StateChange, None]", self._state.watch(self._prefix))
        async with aclosing(changes):
            async for change in changes:
                heard.set()
                if change.key != self._hello:
                    self._changed(change)

    async def _read(self, heard: asyncio.Event) -> None:
        await self._until(heard)
        await self._keep()

    async def _until(self, heard: asyncio.Event) -> None:
        """Return once the watch has begun. Raises `QueueError`."""
        tries, give_up_at = 0, asyncio.get_running_loop().time() + _HEARD_LIMIT_S
        while not heard.is_set():
            if asyncio.get_running_loop().time() >= give_up_at:
                raise QueueError(f"the watch has told nothing within {_HEARD_LIMIT_S:g} s")
            await self._state.set(self._hello, secrets.token_hex(4).encode(), ttl_s=_HELLO_TTL_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HELLO_AGAIN_S[min(tries, len(_HELLO_AGAIN_S) - 1)]):
                    await heard.wait()
            tries += 1
