"""Waiting without a worker: a tool call parks the run, and the task lies in the queue until it is woken.

A tool raises `Parked`. Once no other call of the run is under way the run is put down with all that it has journalled,
as a `Retry` that counts no failure, and its slot is free. When the task comes back, because somebody has woken it or
its time has come, finished calls are not repeated, and those that had parked are made again: so they have to be calls
that may be repeated.

What was ready before the task lay in the queue could not wake it. So whoever has put it down looks once more, and wakes
it itself; should it die before that, the task looks by itself, soon at first and then more rarely.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

import structlog

from queue_backends import Backend, QueueError
from queue_backends.capabilities import Capability

FIRST_LOOK_S = 30.0
LONGEST_LOOK_S = 900.0
"""A parked task looks for itself after the first time, then twice as late each time, up to this."""
LONGEST_LOOK_UNWOKEN_S = 15.0
"""The same on an engine that cannot wake a task."""
SHORTEST_S = 0.5
"""A tool that has to wait and says that its time is up is not called in a busy loop."""
LOOK_WITHIN_S = 10.0

IsReady = Callable[[], Awaitable[bool]]
"""Whether what a run waits for is there. May raise a `QueueError`."""

log = structlog.get_logger(__name__)


class Parked(BaseException):
    """The run has to wait for something that may take long. No error: what catches those lets it through.

    `until` is when it stops waiting at the latest, Unix seconds: then it is run again and has to come to an end.
    `reason` says what it waits for, in words for people: `approval of delete_file`. `is_ready` is asked once more after
    the run has been put down: whatever was ready before that would have woken nobody.
    """

    def __init__(self, until: float, reason: str, *, is_ready: IsReady | None = None) -> None:
        super().__init__(reason)
        self.until = until
        self.reason = reason
        self.is_ready = is_ready


class Parking:
    """What of a run is under way, and which of its calls wait: it is put down when nothing else is left."""

    __slots__ = ("_hold_s", "_put_down", "_under_way", "waits")

    def __init__(self, put_down: Callable[[], None], backend: Backend) -> None:
        """`put_down` ends the run, whose calls are cancelled then."""
        self._put_down = put_down
        self._under_way = 0
        self._hold_s = LONGEST_LOOK_UNWOKEN_S if Capability.DELAYED in backend.gaps else 0.0
        self.waits: list[Parked] = []

    def begun(self) -> None:
        """Something is under way that must not be cut off: a model call, a tool call."""
        self._under_way += 1

    def ended(self) -> None:
        """It is over, and what came of it is stored."""
        self._under_way -= 1
        if self.waits and self._under_way <= 0:
            self._put_down()

    async def park(self, parked: Parked) -> NoReturn:
        """A call that was under way waits; this returns by cancellation only."""
        if self._hold_s:  # a task that is given back there comes again at once
            await asyncio.sleep(min(self._hold_s, max(SHORTEST_S, parked.until - time.time())))
        self.waits.append(parked)
        self.ended()
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody answers a future that nobody knows")

    @property
    def reason(self) -> str:
        """What the run waits for."""
        return "; ".join(dict.fromkeys(wait.reason for wait in self.waits))


def next_look_s(waits: Sequence[Parked], backend: Backend, *, looks: int, deadline: float | None) -> float:
    """For how long a run is put down: until the first of its calls may wait no more, its task's deadline comes, or it
    is time to look whether something was missed. `looks`: how often it did in vain."""
    longest_s = min(FIRST_LOOK_S * 2.0 ** min(looks, 20), LONGEST_LOOK_S)
    if Capability.WAKE in backend.gaps:
        longest_s = LONGEST_LOOK_UNWOKEN_S
    moments = [wait.until for wait in waits] + ([deadline] if deadline is not None else [])
    return max(SHORTEST_S, min([longest_s, *(moment - time.time() for moment in moments)]))


class LastLooks:
    """Looks once more for what runs wait for that were just put down."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._put_down: asyncio.Queue[tuple[str, Sequence[Parked]]] = asyncio.Queue()

    def put_down(self, task_id: str, waits: Sequence[Parked]) -> None:
        """A task lies in the queue now."""
        self._put_down.put_nowait((task_id, waits))

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as looks:
            while True:
                task_id, waits = await self._put_down.get()
                looks.create_task(self._look(task_id, waits), name=f"last look of {task_id}")

    async def _look(self, task_id: str, waits: Sequence[Parked]) -> None:
        """Wake the task if what it waits for is there by now. What fails here costs time alone."""
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                for wait in waits:
                    if wait.is_ready is not None and await wait.is_ready():
                        await self._backend.queue.wake([task_id])
                        return
        except (QueueError, TimeoutError) as error:
            log.warning("a parked task looks again by itself", task=task_id, error=str(error))
        except Exception:  # a tool's code: whatever it raises, the task looks by itself
            log.exception("what a parked task waits for cannot be asked for", task=task_id)
