"""`shoal drain`: let workers finish what they have, and leave."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import socket
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from worker.cli.failures import FAILED, OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.parameters import DURATION

if TYPE_CHECKING:
    from queue_backends import StateStore
    from worker.fleet.presence import Presence, Workers

_RECHECK_S = 2.0
"""A worker that says goodbye is seen at once; one that is killed meanwhile is not on the list for ever."""


@click.command(
    help="Let workers leave: they take no new task, finish the running ones within their grace period, hand the rest "
    "back and end with 0. Their supervisor does not start them again. WORKER is an id of `shoal workers`, the "
    "beginning of one, or host:pid.\n\n"
    + examples("shoal drain web-1-4711-3f2a91c0", "shoal drain web-1:4711 --wait", "shoal drain --all --wait")
)
@click.argument("names", metavar="[WORKER]...", nargs=-1)
@click.option("--all", "everyone", is_flag=True, help="All workers of the queue.")
@click.option("--wait", is_flag=True, help="Until they have left.")
@click.option("--timeout", "timeout_s", type=DURATION, default=600.0, help="For --wait; default: 10m.")
@shoal_options
def drain(call: Invocation, names: tuple[str, ...], everyone: bool, wait: bool, timeout_s: float) -> int:
    """Exit code 4 for an unknown worker, 1 if one is still there after `--timeout`."""
    if bool(names) == everyone:
        raise click.UsageError("name the workers to drain, or give --all: shoal workers lists them")
    return call.wait_for(_drain(call, names, timeout_s if wait else 0.0))


async def _drain(call: Invocation, names: Sequence[str], timeout_s: float) -> int:
    from worker.fleet.presence import Workers, find_worker

    async with call.fleet() as fleet:
        workers = Workers(fleet.backend.state)
        present = await workers.all()
        # All are looked up before the first is asked: a typing error changes nothing.
        chosen = [find_worker(present, name) for name in names] if names else present
        if not chosen:
            call.screen.note("no worker is up")
        for worker in chosen:
            await workers.request_drain(worker.id, by=_myself())
            _tell(call, worker, "asked to leave")
        if not timeout_s:
            return OK
        remaining = await _left(fleet.backend.state, workers, chosen, timeout_s)
        for worker in chosen:
            _tell(call, worker, "still there" if worker.id in remaining else "left")
    return FAILED if remaining else OK


def _tell(call: Invocation, worker: Presence, what: str) -> None:
    if call.screen.as_json:
        call.screen.json({"id": worker.id, "outcome": what})
    else:
        call.screen.line(f"{worker.id}  {what}", "warn" if what == "still there" else "")


async def _left(state: StateStore, workers: Workers, chosen: Sequence[Presence], timeout_s: float) -> set[str]:
    """Wait until they are gone; return who is not."""
    from worker.background import BackgroundWork

    remaining = {worker.id for worker in chosen}
    deadline = time.monotonic() + timeout_s
    changed = asyncio.Event()
    async with BackgroundWork(partial(_note_changes, state, changed), name="workers that leave"):
        while True:
            changed.clear()
            remaining = {worker_id for worker_id in remaining if await workers.is_there(worker_id)}
            rest_s = deadline - time.monotonic()
            if not remaining or rest_s <= 0:
                return remaining
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(rest_s, _RECHECK_S)):
                    await changed.wait()


async def _note_changes(state: StateStore, changed: asyncio.Event) -> None:
    from queue_backends import QueueError
    from worker.fleet.presence import KEY_PREFIX

    with contextlib.suppress(QueueError):  # then the looks every now and then must do
        async for change in state.watch(KEY_PREFIX):
            if change.value is None:
                changed.set()


def _myself() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "?"
    return f"{user}@{socket.gethostname()}"
