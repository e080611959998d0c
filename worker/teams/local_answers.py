"""Answers of people reach tasks in a private queue: whoever answers knows the shared queue alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import msgspec

from queue_backends import QueueError, StateChange, StateStore, TaskQueue
from worker.approvals import PREFIX, Approval

_AGAIN_S = 1.0

_approval = msgspec.json.Decoder(Approval).decode


async def wake_answered(state: StateStore, queue: TaskQueue) -> None:
    """Wake each task of the queue whose question is answered. Endless. What is missed costs the task some seconds: it
    looks by itself now and then."""
    while True:
        try:
            changes = cast("AsyncGenerator[StateChange, None]", state.watch(PREFIX))
            async with aclosing(changes):
                async for change in changes:
                    if change.value is not None:
                        await _wake(_approval(change.value), queue)
        except (QueueError, msgspec.DecodeError):
            await asyncio.sleep(_AGAIN_S)


async def _wake(question: Approval, queue: TaskQueue) -> None:
    if question.decided and question.task:
        await queue.wake([question.task])
