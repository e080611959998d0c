"""The queue's figures are on the metrics page while the queue answers, cost it little, and hold up nobody."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator

import pytest

from queue_backends import Backend, BackendUnavailable, QueueStats, Task, open_backend
from worker.health import HealthServer, HealthState
from worker.health_thread import served_beside
from worker.metric_families import families
from worker.metrics import Metrics
from worker.prometheus import render
from worker.queue_gauges import KEEP_S, QueueGauges, queue_name

LIMIT_S = 30
SEEN = QueueStats(ready=7, running=3, delayed=2, dead=1, oldest_ready_age_s=4.5, paused=True)


class Queue:
    """A queue that answers, refuses or hangs, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: QueueStats | None = SEEN
        self.hangs = False

    async def stats(self) -> QueueStats:
        """Its figures."""
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.answer is None:
            raise BackendUnavailable("gone")
        return self.answer


class Clock:
    """A clock that a test turns."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock at an arbitrary moment."""
    return Clock()


@pytest.fixture
def queue() -> Queue:
    """A queue that answers."""
    return Queue()


@pytest.fixture
async def metrics(queue: Queue, clock: Clock) -> Metrics:
    """A worker's figures with those of the queue."""
    metrics = Metrics()
    metrics.queue = QueueGauges(queue.stats, "agents", clock=clock)
    return metrics


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine is no queue that is away."""
    monkeypatch.setattr("worker.queue_gauges.LIMIT_S", float(LIMIT_S))


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A queue in memory."""
    async with await open_backend("memory://") as opened:
        yield opened


def queue_lines(metrics: Metrics) -> set[str]:
    """What the page says about the queue."""
    return {line for line in render(metrics).splitlines() if line.startswith("shoal_queue")}


async def refreshed(metrics: Metrics) -> set[str]:
    """As a scrape has it."""
    assert metrics.queue is not None
    async with asyncio.timeout(LIMIT_S):
        await metrics.queue.refresh()
    return queue_lines(metrics)


async def test_all_figures_are_on_the_page(metrics: Metrics) -> None:
    """By the queue's name, and by nothing that differs from worker to worker."""
    assert await refreshed(metrics) == {
        'shoal_queue_ready{queue="agents"} 7',
        'shoal_queue_running{queue="agents"} 3',
        'shoal_queue_delayed{queue="agents"} 2',
        'shoal_queue_dead{queue="agents"} 1',
        'shoal_queue_paused{queue="agents"} 1',
        'shoal_queue_oldest_ready_age_seconds{queue="agents"} 4.5',
    }
    assert all(f.kind == "gauge" for f in families(metrics) if f.name.startswith("queue."))


async def test_an_engines_own_figures(backend: Backend) -> None:
    """What a real queue answers; nobody waits, so nobody has waited long."""
    metrics = Metrics()
    metrics.queue = QueueGauges(backend.queue.stats, "agents")
    assert 'shoal_queue_oldest_ready_age_seconds{queue="agents"} 0' in await refreshed(metrics)

    metrics.queue = QueueGauges(backend.queue.stats, "agents")
    await backend.queue.submit_many([Task(prompt="a"), Task(prompt="b")])
    await backend.queue.pull(1, 0)
    assert {'shoal_queue_ready{queue="agents"} 1', 'shoal_queue_running{queue="agents"} 1'} <= await refreshed(metrics)


async def test_an_age_that_is_not_known_is_left_out(metrics: Metrics, queue: Queue) -> None:
    """0 would say that nobody waits."""
    queue.answer = QueueStats(ready=2)
    lines = await refreshed(metrics)
    assert 'shoal_queue_ready{queue="agents"} 2' in lines
    assert not any("oldest" in line for line in lines)


async def test_nobody_asks_until_somebody_reads(metrics: Metrics, queue: Queue) -> None:
    """And a page that was not refreshed shows nothing."""
    assert (queue_lines(metrics), queue.asked) == (set(), 0)


async def test_many_readers_are_one_question(metrics: Metrics, queue: Queue, clock: Clock) -> None:
    """At once or one after the other, until the answer is a few seconds old."""
    await asyncio.gather(*(refreshed(metrics) for _ in range(20)))
    assert queue.asked == 1
    clock.now += KEEP_S
    queue.answer = QueueStats(ready=8)
    assert queue_lines(metrics) == set()  # too old to be shown
    assert 'shoal_queue_ready{queue="agents"} 8' in await refreshed(metrics)
    assert queue.asked == 2


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_queue_that_is_away_has_no_figures(
    metrics: Metrics, queue: Queue, clock: Clock, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    """Neither old ones nor zeros, whether it refuses or hangs; it is asked again when it may be back."""
    await refreshed(metrics)
    clock.now += KEEP_S
    queue.answer, queue.hangs = None, hangs
    with monkeypatch.context() as impatient:
        if hangs:
            impatient.setattr("worker.queue_gauges.LIMIT_S", 0.05)
        assert await refreshed(metrics) == set()
    clock.now += KEEP_S
    queue.answer, queue.hangs = SEEN, False
    assert len(await refreshed(metrics)) == 6


async def test_a_queue_that_is_away_is_not_asked_by_every_reader(metrics: Metrics, queue: Queue) -> None:
    """A failure holds as long as an answer."""
    queue.answer = None
    for _ in range(5):
        assert await refreshed(metrics) == set()
    assert queue.asked == 1


async def test_a_reader_in_another_thread_gets_figures_too(metrics: Metrics, queue: Queue) -> None:
    """The OTLP exporter has no event loop; what it asks is done in the worker's."""
    gauges = metrics.queue
    assert gauges is not None
    await asyncio.to_thread(gauges.refresh_from_thread)
    assert len(queue_lines(metrics)) == 6
    assert queue.asked == 1


async def test_a_reader_does_not_wait_for_a_loop_that_is_held_up(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages have a loop of their own: it goes on without the figures while the worker's does not turn."""
    monkeypatch.setattr("worker.queue_gauges.LIMIT_S", 0.05)
    gauges = QueueGauges(queue.stats, "agents")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(gauges.refresh())).result(LIMIT_S)  # blocks this loop on purpose
    assert (gauges.latest(), queue.asked) == (None, 0)


async def test_the_page_comes_without_them_in_time(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP, from the pages' own thread: with the figures, and without them while the queue hangs."""
    metrics = Metrics()
    metrics.queue = QueueGauges(queue.stats, "agents")
    server = HealthServer(HealthState(), metrics, host="127.0.0.1", port=0)
    async with served_beside(server):
        assert 'shoal_queue_ready{queue="agents"} 7' in await page_of(server.port)
        queue.hangs = True
        monkeypatch.setattr("worker.queue_gauges.LIMIT_S", 0.05)
        metrics.queue = QueueGauges(queue.stats, "agents")
        page = await page_of(server.port)
    assert ("shoal_worker_running 0" in page, "shoal_queue" in page) == (True, False)


async def page_of(port: int) -> str:
    """The metrics page."""
    async with asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: worker\r\n\r\n")
        page = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
    return page


async def test_after_the_loops_end_a_thread_gets_nothing(queue: Queue) -> None:
    """The last export may come after everything else."""

    async def made() -> QueueGauges:
        return QueueGauges(queue.stats, "agents")

    gauges = await asyncio.to_thread(lambda: asyncio.run(made()))
    gauges.refresh_from_thread()
    assert (gauges.latest(), queue.asked) == (None, 0)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("", "agent-tasks"),
        ("host:6379", "agent-tasks"),
        ("redis://h/0?stream=a", "a"),
        ("redis+cluster://a:1,b:2?partitions=3&stream={x}", "{x}"),
        ("arq+redis://h", "arq:queue"),
        ("arq+redis://h?queue=b", "b"),
        ("postgresql://u:secret@h/db", "agent-tasks"),
    ],
)
def test_a_queue_has_the_name_of_its_url(url: str, name: str) -> None:
    """Or its engine's default; nothing else of the URL is shown."""
    assert queue_name(url) == name
