"""What the suites share: how backends are opened and closed, and the small steps that nearly every test takes."""
# ruff: noqa: S101 - tests speak in asserts

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ClassVar, Protocol, TypeVar

import pytest

from queue_backends.capabilities import Capability
from queue_backends.interfaces import Backend, BackendOptions, ChunkBatch, Delivery
from queue_backends.messages import Chunk, ChunkDraft, ChunkType, Task, TaskResult
from queue_backends.registry import open_backend as open_registered

PATIENCE_S = 30.0
"""Every wait for something that must happen is bounded by this. No test measures time with it."""
GAP_PATIENCE_S = 5.0
"""A test of something that a backend says it lacks has failed if it takes longer."""
SHORT_LEASE_S = 0.3
"""A lease for tests that let it run out."""

SHORT_LEASE = BackendOptions(lease_s=SHORT_LEASE_S)

T = TypeVar("T")
Test = Callable[..., Coroutine[Any, Any, None]]


class OpenBackend(Protocol):
    """The fixture `open_backend`: each call opens the same storage once more, as another process would."""

    async def __call__(self, options: BackendOptions = ...) -> Backend:
        """Open the storage that belongs to this test. The fixture closes the backend when the test ends."""
        ...


InjectRaw = Callable[[dict[str, bytes]], Awaitable[None]]
"""Puts an entry into the queue as a foreign program would: these fields, unchecked, of normal priority."""


class Conformance:
    """Base of the suites: they run in pytest-asyncio's strict mode as well as in its auto mode."""

    pytestmark: ClassVar[list[pytest.MarkDecorator]] = [pytest.mark.asyncio]


def needs(capability: Capability) -> Callable[[Test], Test]:
    """Marks a test of what a backend may lack. One that names the capability among its gaps must fail the test: so
    that no flag is wrong, in either direction."""

    def marked(test: Test) -> Test:
        @functools.wraps(test)
        async def run(*args: Any, open_backend: OpenBackend, **fixtures: Any) -> None:
            gap = (await open_backend()).gaps.get(capability)
            if gap is None:
                await test(*args, open_backend=open_backend, **fixtures)
                return
            with pytest.raises((Exception, pytest.fail.Exception)):
                async with asyncio.timeout(GAP_PATIENCE_S):
                    await test(*args, open_backend=open_backend, **fixtures)
            pytest.xfail(f"lacks {capability.value!r}: {gap}")

        return run

    return marked


@asynccontextmanager
async def opener(
    url: str, open_one: Callable[[str, BackendOptions], Awaitable[Backend]] = open_registered
) -> AsyncIterator[OpenBackend]:
    """What a fixture `open_backend` yields for a URL: opens it as often as a test asks, closes all at the end."""
    async with AsyncExitStack() as opened:

        async def open_again(options: BackendOptions = BackendOptions()) -> Backend:  # noqa: B008 - it is frozen
            return await opened.enter_async_context(await open_one(url, options))

        yield open_again


def unique(stem: str) -> str:
    """A name that no other test uses: windows are not always kept apart by queue."""
    return f"{stem}-{uuid.uuid4().hex[:12]}"


async def submit(backend: Backend, prompt: str = "hello", **fields: Any) -> str:
    """Submit one task."""
    return await backend.queue.submit(Task(prompt=prompt, **fields))


async def pull_some(backend: Backend, count: int) -> list[Delivery]:
    """Pull until there are `count` deliveries, in the order they came."""
    found: list[Delivery] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            found += await backend.queue.pull(count - len(found), PATIENCE_S)
    return found


async def pull_one(backend: Backend) -> Delivery:
    """Pull the next task."""
    return (await pull_some(backend, 1))[0]


async def pull_nothing(backend: Backend, wait_s: float = 0.0) -> None:
    """Prove that nothing is ready."""
    assert await backend.queue.pull(10, wait_s) == []


def done(delivery: Delivery, output: str = "done") -> TaskResult:
    """The result of a success."""
    return TaskResult(task_id=delivery.task.id, output=output, finished_at=time.time())


def failed(delivery: Delivery, error: str) -> TaskResult:
    """The result of a failure."""
    return TaskResult(task_id=delivery.task.id, error=error, finished_at=time.time())


def text(content: str, **fields: Any) -> ChunkDraft:
    """A piece of an answer."""
    return ChunkDraft(type=ChunkType.CONTENT, content=content, **fields)


FINAL = ChunkDraft(type=ChunkType.DONE, is_final=True)


async def publish(backend: Backend, delivery: Delivery, *chunks: ChunkDraft) -> None:
    """Publish chunks of a delivery that is still held."""
    assert await backend.chunks.publish([ChunkBatch(delivery=delivery, chunks=chunks)]) == []


async def all_chunks(backend: Backend, task_id: str, *, after_seq: int = -1) -> list[Chunk]:
    """A task's chunks up to the final one, however long they take to come."""
    async with asyncio.timeout(PATIENCE_S), iterating(backend.chunks.subscribe(task_id, after_seq=after_seq)) as stream:
        return [chunk async for chunk in stream]


def contents(chunks: Sequence[Chunk]) -> list[str]:
    """What the chunks say, the final one left out."""
    return [chunk.content for chunk in chunks if not chunk.is_final]


def assert_numbered(chunks: Sequence[Chunk], *, first: int = 0) -> None:
    """Prove that there is no gap, no duplicate, and one final chunk, which is the last."""
    assert [chunk.seq for chunk in chunks] == list(range(first, first + len(chunks)))
    assert [chunk.is_final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


async def finish_stream(backend: Backend, delivery: Delivery) -> list[Chunk]:
    """Publish the final chunk, and return all that the task's stream holds then."""
    await publish(backend, delivery, FINAL)
    return await all_chunks(backend, delivery.task.id)


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Return once `check` holds: for what only the passing of time brings about, such as the end of a lifetime."""
    async with asyncio.timeout(PATIENCE_S):
        while not await check():  # noqa: ASYNC110 - nothing announces the end of a lifetime
            await asyncio.sleep(0.02)


async def within(awaitable: Awaitable[T]) -> T:
    """Await something that must come, and fail if it does not."""
    async with asyncio.timeout(PATIENCE_S):
        return await awaitable


@asynccontextmanager
async def iterating(iterator: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Use an iterator, and close it whatever happens."""
    try:
        yield iterator
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


@asynccontextmanager
async def background(awaitable: Awaitable[T]) -> AsyncIterator[asyncio.Future[T]]:
    """Run something beside the body, and cancel it if the body ends first."""
    future = asyncio.ensure_future(awaitable)
    try:
        yield future
    finally:
        future.cancel()
        await asyncio.wait([future])
