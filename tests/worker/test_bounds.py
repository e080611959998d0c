"""What a run may put on its stream and hold in memory, however much the model or a tool says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from providers.errors import InvalidRequest
from providers.interfaces import ChatProvider, LLMProvider
from providers.messages import AgentConfig, Message, StopReason, TextDelta, TurnEnd, TurnEvent, TurnRequest
from queue_backends import Backend, Chunk, ChunkBatch, ChunkType, Delivery, Task, TokenUsage
from tests.worker.conftest import WorkerFactory
from worker import streaming
from worker.chunk_bounds import LONGEST_CHUNK_CHARS, shortened
from worker.metrics import WorkerMetrics
from worker.providers_in_use import ProvidersInUse
from worker.streaming import MOST_PENDING_CHARS, ROUNDS, ChunkPublisher, ChunkWriter

LIMIT_S = 20


@pytest.fixture
async def delivery(backend: Backend) -> Delivery:
    """A task in hand."""
    (pulled,) = await deliveries(backend, 1)
    return pulled


async def deliveries(backend: Backend, count: int) -> list[Delivery]:
    """Tasks in hand."""
    await backend.queue.submit_many([Task(prompt="hi") for _ in range(count)])
    return await backend.queue.pull(count, 1)


@pytest.fixture
def writer(backend: Backend, delivery: Delivery) -> ChunkWriter:
    """A writer whose publisher does not run: what it takes stays until it is asked for."""
    return ChunkWriter(ChunkPublisher(backend, WorkerMetrics()), delivery)


# Single chunks


async def test_text_is_split_without_loss(writer: ChunkWriter) -> None:
    """Whatever the characters, the pieces are bounded and make the whole."""
    content = "e\u0301🌍\u200d👩ü" * 10_000
    await writer(ChunkType.CONTENT, content)
    await writer(ChunkType.THINKING, content)
    drafts = await writer.finish()
    for kind in (ChunkType.CONTENT, ChunkType.THINKING):
        pieces = [draft.content for draft in drafts if draft.type is kind]
        assert "".join(pieces) == content
        assert max(map(len, pieces)) <= LONGEST_CHUNK_CHARS


async def test_a_lone_surrogate_does_not_stop_the_stream(writer: ChunkWriter) -> None:
    """Text that cannot be written as UTF-8 is replaced where it cannot, in text as well as in tool chunks."""
    await writer(ChunkType.CONTENT, "a\ud800b")
    await writer(ChunkType.TOOL_RESULT, "c\udfff", {"id": "\ud800"})
    text, result = await writer.finish()
    assert (text.content, result.content) == ("a?b", "c?")
    msgspec.json.encode([text.content, result.content, result.metadata])


async def test_a_tool_result_stays_one_chunk(writer: ChunkWriter) -> None:
    """Consumers get one event with the beginning, and are told how much there was."""
    await writer(ChunkType.TOOL_RESULT, "x" * 100_000, {"id": "c", "name": "t", "is_error": False})
    (draft,) = await writer.finish()
    assert draft.content == "x" * LONGEST_CHUNK_CHARS
    assert draft.metadata == {"id": "c", "name": "t", "is_error": False, "truncated": True, "chars": 100_000}


async def test_a_kept_output_is_referred_to(writer: ChunkWriter) -> None:
    """The chunk of a call whose whole output is stored says where; those of other calls do not."""
    writer.note_kept("c", "output:c", 400_000)
    await writer(ChunkType.TOOL_RESULT, "other", {"id": "d"})
    await writer(ChunkType.TOOL_RESULT, "x" * 100_000, {"id": "c"})
    await writer(ChunkType.TOOL_RESULT, "again", {"id": "c"})
    other, kept, again = await writer.finish()
    assert kept.metadata == {"id": "c", "truncated": True, "chars": 400_000, "stored": "output:c"}
    assert (other.metadata, again.metadata) == ({"id": "d"}, {"id": "c"})


async def test_tool_arguments_are_bounded(writer: ChunkWriter) -> None:
    """Long arguments become the beginning of their JSON; the other fields stay what they are."""
    arguments = {"text": "y" * 1_000_000}
    await writer(ChunkType.TOOL_CALL, "t", {"id": "c", "name": "t", "arguments": arguments})
    (draft,) = await writer.finish()
    assert draft.metadata["arguments"] == json.dumps(arguments, separators=(",", ":"))[:LONGEST_CHUNK_CHARS]
    assert draft.metadata | {"arguments": ""} == {
        "id": "c",
        "name": "t",
        "arguments": "",
        "truncated": True,
        "chars": 1_000_011,
    }


@pytest.mark.parametrize(
    "metadata",
    [
        {f"k{number}": number for number in range(100_000)},
        {f"k{number}": "x" * 5_000 for number in range(1_000)},
        {"k" * 100_000: 1},
        {"deep": [[[["x" * 100_000]]]]},
    ],
    ids=["many", "many large", "long name", "deep"],
)
def test_any_metadata_is_bounded(metadata: dict[str, Any]) -> None:
    """Whatever a provider of somebody's puts there."""
    content, bounded = shortened("t", metadata)
    assert content == "t"
    assert len(msgspec.json.encode(bounded)) < 10 * LONGEST_CHUNK_CHARS
    assert bounded["truncated"] is True


def test_metadata_that_is_no_json_becomes_text() -> None:
    """A foreign provider's object does not end the stream."""
    _, bounded = shortened("t", {"id": "c", "kind": int, "none": None})
    assert bounded == {"id": "c", "kind": "<class 'int'>", "none": None}


def test_short_metadata_is_left_alone() -> None:
    """The very same object: nothing is copied where nothing is too long."""
    metadata = {"id": "c", "arguments": {"a": [1, None]}}
    assert shortened("t", metadata)[1] is metadata


# All runs together


class Stalled:
    """A chunk stream that takes what it is given only when somebody lets it."""

    def __init__(self, backend: Backend) -> None:
        self._chunks = backend.chunks
        self.gate = asyncio.Event()

    async def publish(self, batches: Sequence[ChunkBatch]) -> list[Delivery]:
        """Publish, once the gate is open."""
        await self.gate.wait()
        return await self._chunks.publish(batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chunks, name)


@pytest.fixture
async def stalled(backend: Backend) -> AsyncIterator[tuple[ChunkPublisher, Stalled]]:
    """A publisher whose broker does not answer."""
    stream = Stalled(backend)
    backend.chunks = stream  # type: ignore[assignment]  # what it does not define it passes on
    publisher = ChunkPublisher(backend, WorkerMetrics())
    running = asyncio.create_task(publisher.run())
    yield publisher, stream
    running.cancel()
    await asyncio.wait([running])


async def settle() -> None:
    """Let everybody go on who can."""
    for _ in range(200):
        await asyncio.sleep(0)


async def say(writer: ChunkWriter, text: str, times: int) -> None:
    """What a run does whose model does not stop."""
    for _ in range(times):
        await writer(ChunkType.CONTENT, text)


async def all_of(backend: Backend, task_id: str) -> list[Chunk]:
    """A task's chunks, its stream being at its end."""
    return [chunk async for chunk in backend.chunks.subscribe(task_id)]


async def test_all_runs_together_are_bounded(
    backend: Backend, stalled: tuple[ChunkPublisher, Stalled], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the broker does not answer, a hundred runs hold what is allowed for all of them, and nothing is lost."""
    monkeypatch.setattr(streaming, "MOST_PENDING_CHARS_OF_ALL", 100_000)
    publisher, stream = stalled
    writers = [ChunkWriter(publisher, delivery) for delivery in await deliveries(backend, 100)]
    saying = [asyncio.ensure_future(say(writer, "x" * 1000, 50)) for writer in writers]
    await settle()
    assert sum(each.done() for each in saying) == 2
    assert 100_000 < publisher.pending_chars <= 101_000
    stream.gate.set()
    await asyncio.wait_for(asyncio.gather(*saying), LIMIT_S)
    for writer in writers:
        await publisher_is_done(writer)
        assert sum(len(draft.content) for draft in await kept_chunks(backend, writer)) == 50_000
    assert publisher.pending_chars == 0


async def publisher_is_done(writer: ChunkWriter) -> None:
    """Publish what is left, as the end of a run does."""
    drafts = await writer.finish()
    if drafts:
        await writer._publisher._backend.chunks.publish([ChunkBatch(delivery=writer.delivery, chunks=drafts)])


async def kept_chunks(backend: Backend, writer: ChunkWriter) -> list[Chunk]:
    """What of a stream that has no end is kept."""
    found: list[Chunk] = []
    stream = backend.chunks.subscribe(writer.delivery.task.id)
    while sum(len(chunk.content) for chunk in found) < 50_000:
        found.append(await asyncio.wait_for(anext(stream), LIMIT_S))
    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
    return found


async def test_tool_arguments_count(
    backend: Backend, stalled: tuple[ChunkPublisher, Stalled], delivery: Delivery
) -> None:
    """A run that calls tools with long arguments is as far ahead of the broker as one that talks."""
    publisher, stream = stalled
    writer = ChunkWriter(publisher, delivery)

    async def call_tools() -> None:
        for number in range(100):
            await writer(ChunkType.TOOL_CALL, "t", {"id": f"c{number}", "arguments": {"text": "x" * 10_000}})

    calling = asyncio.ensure_future(call_tools())
    await settle()
    assert not calling.done()
    assert MOST_PENDING_CHARS < publisher.pending_chars < 3 * MOST_PENDING_CHARS
    stream.gate.set()
    await asyncio.wait_for(calling, LIMIT_S)


async def test_one_long_text_is_taken_piece_by_piece(
    backend: Backend, stalled: tuple[ChunkPublisher, Stalled], delivery: Delivery
) -> None:
    """A single delta beyond all bounds is taken as the broker takes it."""
    publisher, stream = stalled
    writer = ChunkWriter(publisher, delivery)
    saying = asyncio.ensure_future(writer(ChunkType.CONTENT, "x" * 10_000_000))
    await settle()
    assert not saying.done()
    assert publisher.pending_chars <= 2 * (MOST_PENDING_CHARS + LONGEST_CHUNK_CHARS)
    stream.gate.set()
    await asyncio.wait_for(saying, LIMIT_S)


async def test_who_waits_longest_goes_first(
    backend: Backend, stalled: tuple[ChunkPublisher, Stalled], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that wait for room get it in the order in which they came."""
    monkeypatch.setattr(streaming, "MOST_PENDING_CHARS_OF_ALL", 1000)
    publisher, stream = stalled
    went: list[int] = []

    async def one(number: int, writer: ChunkWriter) -> None:
        await writer(ChunkType.CONTENT, "x" * 900)
        went.append(number)

    async with asyncio.TaskGroup() as group:
        for number, delivery in enumerate(await deliveries(backend, 20)):
            group.create_task(one(number, ChunkWriter(publisher, delivery)))
        await settle()
        assert went == [0, 1]
        stream.gate.set()
    assert went == list(range(20))


async def test_a_run_that_ends_makes_room(
    backend: Backend, stalled: tuple[ChunkPublisher, Stalled], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leaves with a run's outcome is no longer counted, and who waited goes on without any publish."""
    monkeypatch.setattr(streaming, "MOST_PENDING_CHARS_OF_ALL", 1000)
    publisher, _ = stalled
    *under_way, second, third = (ChunkWriter(publisher, each) for each in await deliveries(backend, ROUNDS + 2))
    for writer in under_way:
        await writer(ChunkType.CONTENT, "x" * (500 // ROUNDS))
        await settle()  # on its way, and stays there
    await second(ChunkType.CONTENT, "y" * 600)
    waiting = asyncio.ensure_future(third(ChunkType.CONTENT, "z"))
    await settle()
    assert not waiting.done()
    assert [draft.content for draft in await asyncio.wait_for(second.finish(), LIMIT_S)] == ["y" * 600]
    await asyncio.wait_for(waiting, LIMIT_S)
    assert publisher.pending_chars == 501


async def test_a_run_that_is_cancelled_while_it_waits_leaves_no_trace(
    backend: Backend, stalled: tuple[ChunkPublisher, Stalled], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is given to the next."""
    monkeypatch.setattr(streaming, "MOST_PENDING_CHARS_OF_ALL", 1000)
    publisher, stream = stalled
    first, second, third = (ChunkWriter(publisher, delivery) for delivery in await deliveries(backend, 3))
    await first(ChunkType.CONTENT, "x" * 2000)
    cancelled = asyncio.ensure_future(second(ChunkType.CONTENT, "y"))
    waiting = asyncio.ensure_future(third(ChunkType.CONTENT, "z"))
    await settle()
    cancelled.cancel()
    stream.gate.set()
    await asyncio.wait_for(waiting, LIMIT_S)
    await asyncio.wait([cancelled])
    assert [draft.content for draft in await second.finish()] == []


async def test_short_texts_do_not_pile_up(
    backend: Backend, stalled: tuple[ChunkPublisher, Stalled], delivery: Delivery
) -> None:
    """Ten thousand single characters wait as a few strings."""
    publisher, _ = stalled
    writer = ChunkWriter(publisher, delivery)
    await writer(ChunkType.CONTENT, "x")
    await settle()
    await say(writer, "y", 10_000)
    assert sum(len(piece.texts) for piece in writer._pieces) <= streaming.MOST_PIECES
    assert "".join(draft.content for draft in await finish_now(writer)) == "y" * 10_000


async def finish_now(writer: ChunkWriter) -> Sequence[Any]:
    """What waits, without waiting for what is on its way."""
    return writer.take()


# Whole runs


class Flood(ChatProvider):
    """A model server that does not care about `max_tokens`."""

    name = "flood"

    def __init__(self) -> None:
        self.sent_chars = 0

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """Text, as long as somebody reads."""
        while self.sent_chars < 50_000_000:
            self.sent_chars += 10_000
            yield TextDelta("x" * 10_000)
        yield TurnEnd(message=Message.assistant(""), stop_reason=StopReason.END_TURN, usage=TokenUsage())


def everybody_gets(provider: LLMProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a run asks for, it gets this provider."""

    class Given(ProvidersInUse):
        def get(self, config: AgentConfig) -> LLMProvider:
            return provider

    monkeypatch.setattr("worker.swarm_plugin.everywhere.ProvidersInUse", Given)


async def test_an_answer_without_end_ends_the_run(fleet_of: WorkerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run fails for good with the limit and what to do; no more is read than the limit, and nothing is retried."""
    flood = Flood()
    everybody_gets(flood, monkeypatch)
    async with fleet_of(**{"agent.max_answer_chars": 100_000}) as (fleet, _):
        result = await (await fleet.submit("go")).result(timeout_s=LIMIT_S)
    assert result.error.startswith("the answer has more than 100000 characters (max_answer_chars): raise it")
    assert flood.sent_chars <= 120_000


async def test_an_answer_that_comes_at_once_is_bounded_too(
    fleet_of: WorkerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text and arguments that no delta announced count."""

    class Whole(Flood):
        async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
            yield TurnEnd(message=Message.assistant("x" * 100_001), stop_reason=StopReason.END_TURN, usage=TokenUsage())

    everybody_gets(Whole(), monkeypatch)
    async with fleet_of(**{"agent.max_answer_chars": 100_000}) as (fleet, _):
        result = await (await fleet.submit("go")).result(timeout_s=LIMIT_S)
    assert "max_answer_chars" in result.error


async def test_a_run_with_a_long_output(fleet_of: WorkerFactory, tmp_path: Any) -> None:
    """From the tool to the consumer: the chunk says where the output is, and the model can read on."""
    tools = tmp_path / "flood_tools.py"
    tools.write_text(
        "from worker.tools import tool\n\n\n@tool\ndef talk() -> str:\n"
        '    """Talk."""\n    return "".join(f"{n:07d}\\n" for n in range(50_000))\n'
    )
    script = {
        "scenarios": [
            {
                "turns": [
                    {"tool_calls": [{"name": "talk", "arguments": {}}]},
                    {"tool_calls": [{"name": "read_output", "arguments": {"call_id": "call_0_0", "offset": 399_992}}]},
                    {"text": "{last_result}"},
                ]
            }
        ]
    }
    async with fleet_of(script=script, python_tools=(str(tools),)) as (fleet, _):
        task = await fleet.submit("go")
        result = await task.result(timeout_s=LIMIT_S)
        chunks = [chunk async for chunk in task]
    assert result.output == "0049999\n\n[characters 399992 to 400000 of 400000]"
    said = next(chunk for chunk in chunks if chunk.type is ChunkType.TOOL_RESULT)
    assert len(said.content) == LONGEST_CHUNK_CHARS
    assert {"truncated": True, "chars": 400_000, "stored": "output:call_0_0"}.items() <= said.metadata.items()


async def test_a_long_error_is_cut(fleet_of: WorkerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that fails with a novel: result, chunk and dead letter have its beginning."""

    class Novelist(Flood):
        async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
            yield TextDelta("a")
            raise InvalidRequest("x" * 10_000_000)

    everybody_gets(Novelist(), monkeypatch)
    async with fleet_of() as (fleet, _):
        task = await fleet.submit("go")
        result = await task.result(timeout_s=LIMIT_S)
        last = [chunk async for chunk in task][-1]
    assert len(result.error) < LONGEST_CHUNK_CHARS + 100
    assert last.content == result.error
    assert result.error.endswith("[cut: 10000000 characters]")
