"""Watches one task: its chunks as they come, then how it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from queue_backends import Chunk, QueueError, ReplayTrimmed, TaskResult, TaskState
from worker.cli.screen import Screen
from worker.cli.turns import Turns, Verdict
from worker.cli.views import JsonView, View, view_for
from worker.cli.wording import duration, moment

if TYPE_CHECKING:
    from worker.client import Fleet, Handle

QUIET_S = 3.0
"""After so long without any chunk, the reader is told what the task waits for."""
_RESULT_TIMEOUT_S = 30.0


async def follow(
    fleet: Fleet,
    handle: Handle,
    screen: Screen,
    *,
    after_seq: int = -1,
    started_at: float | None = None,
    resumable: bool = True,
) -> TaskResult:
    """Show the chunks after `after_seq` until the task has ended; return its result.

    With `started_at` (of `time.monotonic`) the ending says how long it took. When it is cancelled (Ctrl-C) it says how
    to go on watching, if the task is `resumable`. Raises what the stream raises.
    """
    view = view_for(screen)
    show = _shower(view)
    last_seq = after_seq
    hint = asyncio.create_task(_tell_what_it_waits_for(fleet, handle, screen), name="waiting-hint")
    try:
        async for chunk in _chunks(handle, screen, after_seq):
            hint.cancel()
            last_seq = chunk.seq
            show(chunk)
        result = await handle.result(timeout_s=_RESULT_TIMEOUT_S)
    except asyncio.CancelledError:
        view.pause()
        if resumable:
            _say_how_to_resume(screen, handle.id, last_seq)
        raise
    finally:
        hint.cancel()
        await asyncio.gather(hint, return_exceptions=True)
    view.end(result, elapsed_s=None if started_at is None else time.monotonic() - started_at)
    return result


def _shower(view: View) -> Callable[[Chunk], None]:
    """Shows each chunk as the rule of restarted turns wants it; JSON readers get all and apply it themselves."""
    if isinstance(view, JsonView):
        return view.chunk
    turns = Turns()

    def show(chunk: Chunk) -> None:
        verdict = turns.judge(chunk)
        if verdict is Verdict.RESTART:
            view.restart()
        if verdict is not Verdict.SKIP and not chunk.is_final:
            view.chunk(chunk)

    return show


async def _chunks(handle: Handle, screen: Screen, after_seq: int) -> AsyncIterator[Chunk]:
    """The chunks after `after_seq`; if the oldest of them are gone, those that are still kept."""
    try:
        async for chunk in handle.chunks(after_seq=after_seq):
            yield chunk
    except ReplayTrimmed as trimmed:
        screen.note(f"chunks before {trimmed.first_seq} are no longer kept", "warn")
        async for chunk in handle.chunks(after_seq=trimmed.first_seq - 1):
            yield chunk


async def _tell_what_it_waits_for(fleet: Fleet, handle: Handle, screen: Screen) -> None:
    await asyncio.sleep(QUIET_S)
    try:
        status = await handle.status()
        stats = await fleet.backend.queue.stats()
    except QueueError:
        return  # a hint is not worth an error; the stream itself will tell
    if stats.paused:
        screen.note("waiting: the queue is paused (shoal resume)", "warn")
    elif status.state is TaskState.DELAYED and status.due_at:
        screen.note(f"waiting: due at {moment(status.due_at)}")
    elif status.state is TaskState.READY:
        others = f"{stats.ready} ready, {stats.running} running"
        screen.note(f"waiting for a worker: {others}; start one with: shoal worker", "warn")
    elif status.state is TaskState.RUNNING:
        screen.note(f"running, no output in the last {duration(QUIET_S)}")


def _say_how_to_resume(screen: Screen, task_id: str, last_seq: int) -> None:
    after = f" --after {last_seq}" if last_seq >= 0 else ""
    screen.note(f"stopped watching; the task goes on. To continue: shoal tail {task_id}{after}", "warn")
