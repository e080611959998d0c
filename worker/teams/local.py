"""Runs of teams inside one process: a queue of their own that nobody else works on, a worker, and a driver; but the
state is the machine's (or whatever is configured), so that a run survives its process, counts in budgets and shows in
lists."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl, urlencode

from msgspec.structs import replace

from queue_backends import Backend, BackendMisconfigured, BackendUnavailable, QueueError, open_backend
from queue_backends.composed import ComposedBackend
from queue_backends.temporary import Temporary
from worker.approvals import Approvals
from worker.approvals.waking import AnsweredTasks
from worker.assembly import open_backends, open_worker
from worker.background import BackgroundWork
from worker.settings import Settings
from worker.teams.driver import Driver
from worker.teams.errors import RunNotFound
from worker.teams.ownership import Ownership
from worker.teams.run_spans import run_spans
from worker.teams.runs import Runs

LEASE_S = 5.0
"""Of a local run and its tasks: after a crash, whoever goes on with it waits no longer than this."""
RESUMABLE_S = 7 * 86_400.0
"""What is in the queue of a run that nobody goes on with disappears after this time."""
_EXTEND_S = 20.0
_SLOTS = 100
_SAME_SERVER = frozenset({"embedded", "redis", "rediss", "unix"})
"""Schemes of servers on which any number of queues can be, and disappear."""


class HasEnvironment(Protocol):
    """What of a `Bundle` is needed here."""

    @property
    def env(self) -> Mapping[str, str]:
        """Variables that the file's agents need."""
        ...


class LocalFleet(NamedTuple):
    """All that a run needs, in this process."""

    backend: Backend
    runs: Runs
    driver: Driver


@asynccontextmanager
async def local_fleet(
    settings: Settings,
    bundle: HasEnvironment | None = None,
    *,
    run_id: str = "",
    slots: int = _SLOTS,
    note: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[LocalFleet]:
    """A worker and a driver on the private queue `run-<run_id>`; without a `run_id`, on one in memory.

    `slots`: tasks at once, unless the settings say how many. `note` is told what the user should know: where no server
    can be started, everything is in memory, and the run ends with the process. Leaving the context before the run has
    ended leaves its queue to whoever opens it again with the same id; a queue whose run has ended is deleted.
    """
    settings = _local_settings(settings, slots)
    async with AsyncExitStack() as stack:
        stack.enter_context(environment(bundle.env if bundle is not None else {}))
        shared = await _open_shared(stack, settings, note)
        own = await _open_own(stack, settings, run_id, note)
        backend = ComposedBackend(own, own, shared)
        runs = Runs.of(settings, shared.state)
        if isinstance(own, Temporary):
            stack.push_async_callback(_forget_ended, own, runs, run_id)
            await stack.enter_async_context(_kept(own))
        await stack.enter_async_context(open_worker(settings, backend))
        approvals = Approvals(backend.state, wake=backend.queue.wake)
        await stack.enter_async_context(AnsweredTasks(backend, approvals))
        ownership = await stack.enter_async_context(Ownership(shared.state, lease_s=settings.backend.lease_s))
        spans = await stack.enter_async_context(run_spans())
        yield LocalFleet(backend, runs, Driver(backend, runs, ownership=ownership, spans=spans))


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """For the body's time, this process' environment has those variables that it does not have already."""
    added = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def private_urls(queue_url: str, run_id: str) -> list[str]:
    """Where the queue of a run may be, the best place first: on the configured server, if queues there cost nothing,
    else on the embedded one. None: in memory alone."""
    embedded = f"embedded://?{urlencode({'stream': queue_name(run_id)})}"
    url = queue_url if "://" in queue_url else f"redis://{queue_url}" if queue_url else embedded
    scheme = url.partition("://")[0]
    if scheme == "memory":
        return []
    if scheme not in _SAME_SERVER:
        return [embedded]
    place, _, query = url.partition("?")  # not urlunsplit: it loses the slashes of an empty host
    kept = [(key, value) for key, value in parse_qsl(query, keep_blank_values=True) if key != "stream"]
    return list(dict.fromkeys([f"{place}?{urlencode([*kept, ('stream', queue_name(run_id))])}", embedded]))


def queue_name(run_id: str) -> str:
    """Of a run's private queue."""
    return f"run-{run_id}"


def _local_settings(settings: Settings, slots: int) -> Settings:
    backend = replace(
        settings.backend,
        lease_s=min(settings.backend.lease_s, LEASE_S),
        idempotency_retention_s=max(settings.backend.idempotency_retention_s, RESUMABLE_S),
    )
    is_chosen = "concurrency" in settings.sources
    return replace(
        settings,
        backend=backend,
        concurrency=settings.concurrency if is_chosen else max(slots, _SLOTS),
        team_commands=True,  # the file is the user's own, and so is the machine
    )


async def _open_shared(stack: AsyncExitStack, settings: Settings, note: Callable[[str], None]) -> Backend:
    """The configured backend, of which the state is used."""
    try:
        return await stack.enter_async_context(await open_backends(settings))
    except (BackendMisconfigured, BackendUnavailable) as error:
        if settings.queue_url:
            raise
        note(f"this run cannot be resumed, and what it uses is not kept: {error}")
        return await stack.enter_async_context(await open_backend("memory://", settings.backend))


async def _open_own(stack: AsyncExitStack, settings: Settings, run_id: str, note: Callable[[str], None]) -> Backend:
    """The private queue: on the best server that lets us have one."""
    problem = ""
    for url in private_urls(settings.queue_url, run_id) if run_id else ():
        try:
            return await stack.enter_async_context(await open_backend(url, settings.backend))
        except (BackendMisconfigured, BackendUnavailable) as error:
            problem = str(error)
    if problem and settings.queue_url:  # else it was said already, of the shared one
        note(f"this run cannot be resumed: {problem}")
    return await stack.enter_async_context(await open_backend("memory://", settings.backend))


@asynccontextmanager
async def _kept(own: Temporary) -> AsyncIterator[None]:
    """While the body runs, the queue's lifetime is extended; what comes new into it gets one."""
    await own.keep_for(RESUMABLE_S)
    async with BackgroundWork(partial(_keep, own), name="lifetime of the private queue"):
        yield
    with contextlib.suppress(QueueError):
        await own.keep_for(RESUMABLE_S)


async def _keep(own: Temporary) -> None:
    while True:
        await asyncio.sleep(_EXTEND_S)
        with contextlib.suppress(QueueError):  # the server is away: it is told the next time
            await own.keep_for(RESUMABLE_S)


async def _forget_ended(own: Temporary, runs: Runs, run_id: str) -> None:
    """Delete the queue, if nobody will go on with its run."""
    with contextlib.suppress(QueueError, RunNotFound):  # it could not even begin
        if (await runs.read(run_id)).state.phase.is_final:
            await own.keep_for(0)
