"""One value that all workers read and change together, exactly, on any engine.

It lives under one key of the `StateStore` and is changed by compare-and-set. What happens meanwhile in one process is
gathered into one such step, so a key has at most as many contenders as there are processes, whatever the number of
runs.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct

from queue_backends import BackendUnavailable, StateStore

_MOST_TRIES = 200
_LONGEST_PAUSE_S = 0.05
_REMEMBERED_WRITERS = 64

S = TypeVar("S", bound=Struct)
R = TypeVar("R")
Change = Callable[[S], tuple[S, R]]
"""From the present value to the next one and an answer. Called again if somebody else was faster, so it has no other
effects, but for those on the `Shadow`. Returning the very same object means that nothing has changed."""


class Shadow(Protocol):
    """What a process keeps beside the value, and what changes bring up to date as they are applied."""

    def begin(self) -> None:
        """The changes of a step are about to be applied: what an earlier try of it did has not been."""
        ...

    def keep(self) -> None:
        """They were made."""
        ...


class Contended(BackendUnavailable):
    """Others changed the value each time before we could; ours was not."""


class Unsure(BackendUnavailable):
    """The store went away during the write: nobody knows whether the change was made."""

    was_made: bool | None = None
    """Set as soon as the same `SharedRecord` has looked again, which it does before it applies its next change: so a
    change that is sent anew because of this error can ask whether it still has to do anything."""


class _Envelope(Struct, array_like=True):
    value: msgspec.Raw
    writers: dict[str, int]
    """Writer -> number of its last write, the latest ones: so that a write whose answer was lost is not repeated."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Envelope)


class SharedRecord(Generic[S]):
    """The value under `key`, of Struct type `kind`; `kind()` where there is none. With `ttl_s` it disappears so long
    after its last change. Changes may be about `shadow` too."""

    def __init__(
        self, state: StateStore, key: str, kind: type[S], *, ttl_s: float | None = None, shadow: Shadow | None = None
    ) -> None:
        self._state = state
        self._key = key
        self._kind = kind
        self._values = msgspec.json.Decoder(kind)
        self._ttl_s = ttl_s
        self._shadow = shadow
        self._writer = secrets.token_hex(6)
        self._writes = 0
        self._waiting: list[tuple[Change[S, Any], asyncio.Future[Any]]] = []
        self._turn = asyncio.Lock()
        self._known: bytes | None = None
        self._doubt: tuple[int, Unsure] | None = None
        """The number of the last write, and what its callers were told, if they were told that it is not known."""

    async def read(self) -> S:
        """The present value. Raises `BackendUnavailable`."""
        self._known = await self._state.get(self._key)
        return self._opened(self._known)[0]

    async def update(self, change: Change[S, R]) -> R:
        """Change the value and return the change's answer.

        Raises what `change` raises (others of the same step are not affected); `Unsure` if it may or may not have been
        made; or another `BackendUnavailable`: then it was not. A change whose caller was cancelled before its step
        began is not made.
        """
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, answer))
        try:
            async with self._turn:
                if not answer.done():  # else the one before us has taken ours along
                    await self._whole_step()
            return await answer
        except asyncio.CancelledError:
            answer.cancel()  # a step that has not begun leaves it out
            raise

    async def _whole_step(self) -> None:
        """A step belongs to all who wait for it: one whose caller is cancelled is not cut in two."""
        step = asyncio.create_task(self._step(), name=f"change of {self._key}")
        try:
            await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.wait([step])  # as long as the store takes to answer or to fail
            raise

    async def _step(self) -> None:
        batch, self._waiting = [item for item in self._waiting if not item[1].done()], []
        try:
            answers = await self._written([change for change, _ in batch])
            if self._shadow is not None:
                self._shadow.keep()
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait for the step are told of it
            answers = [_Raised(error)] * len(batch)
        for (_, answer), said in zip(batch, answers, strict=True):
            if answer.done():
                continue
            if isinstance(said, _Raised):
                answer.set_exception(said.error)
                answer.exception()  # whoever has gone away need not be told of it
            else:
                answer.set_result(said)

    async def _written(self, changes: list[Change[S, Any]]) -> list[Any]:
        self._writes += 1
        number, unsure = self._writes, False
        answers: list[Any] = []
        if self._doubt is not None:
            self._known = None
        for tried in range(_MOST_TRIES):
            try:
                before = self._known if tried == 0 and self._known is not None else await self._state.get(self._key)
            except BackendUnavailable as error:
                if unsure:
                    raise self._in_doubt(number, error) from error
                raise
            value, writers = self._opened(before)
            self._resolve_doubt(writers)
            if unsure and writers.get(self._writer) == number:
                self._known = before
                return answers
            if self._shadow is not None:
                self._shadow.begin()
            after, answers = _applied(value, changes)
            if after is value:
                if tried == 0 and self._known is not None:  # decided on what we remembered: look first
                    self._known = None
                    continue
                return answers
            encoded = self._closed(after, writers, number)
            try:
                if await self._state.compare_and_set(self._key, before, encoded, ttl_s=self._ttl_s):
                    self._known = encoded
                    return answers
            except BackendUnavailable as error:
                if unsure:
                    raise self._in_doubt(number, error) from error
                unsure = True
            self._known = None
            if tried > 1:
                await asyncio.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.001 * 2**tried)))  # noqa: S311 - jitter
        raise Contended(f"{self._key} was changed by others {_MOST_TRIES} times in a row: try again")

    def _in_doubt(self, number: int, error: BackendUnavailable) -> Unsure:
        told = Unsure(str(error))
        self._doubt = number, told
        self._known = None
        return told

    def _resolve_doubt(self, writers: dict[str, int]) -> None:
        if self._doubt is not None:
            number, told = self._doubt
            told.was_made = writers.get(self._writer) == number
            self._doubt = None

    def _opened(self, stored: bytes | None) -> tuple[S, dict[str, int]]:
        if stored is None:
            return self._kind(), {}
        envelope = _decoder.decode(stored)
        return self._values.decode(envelope.value), envelope.writers

    def _closed(self, value: S, writers: dict[str, int], number: int) -> bytes:
        latest = {name: last for name, last in writers.items() if name != self._writer}
        while len(latest) >= _REMEMBERED_WRITERS:
            del latest[next(iter(latest))]
        latest[self._writer] = number
        return _encoder.encode(_Envelope(value=msgspec.Raw(_encoder.encode(value)), writers=latest))


def stored_value(stored: bytes) -> bytes:
    """The value as JSON, out of what the `StateStore` has under a record's key: for readers of many records."""
    return bytes(_decoder.decode(stored).value)


class _Raised(Struct, frozen=True):
    error: Exception


def _applied(value: S, changes: list[Change[S, Any]]) -> tuple[S, list[Any]]:
    answers: list[Any] = []
    for change in changes:
        try:
            value, answer = change(value)
        except Exception as error:  # noqa: BLE001 - it belongs to this change's caller alone
            answer = _Raised(error)
        answers.append(answer)
    return value, answers
