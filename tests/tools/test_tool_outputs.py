"""Outputs that are too long for a model: kept whole, referred to, and read page by page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from providers.messages import ImagePart, ToolOutcome
from queue_backends import Backend, BackendUnavailable, StateStore, open_backend
from tests.servers import Server
from tests.tools.tool_servers import call
from worker.tools import Tool, ToolContext, ToolResult, python_tool
from worker.tools import outputs as outputs_module
from worker.tools.builtin import SubmitSubtask
from worker.tools.catalogue import ToolCatalogue
from worker.tools.interfaces import OutputNotKept
from worker.tools.outputs import PIECE_CHARS, OutputStore
from worker.tools.read_output import ReadOutput

LONG = "".join(f"line {number}: grüße 🌍\n" for number in range(40_000))


@pytest.fixture(params=["memory", "redis"])
async def backend(request: pytest.FixtureRequest, valkey_server: Server, stream: str) -> AsyncIterator[Backend]:
    """A store on each engine."""
    url = "memory://" if request.param == "memory" else valkey_server.url(stream)
    async with await open_backend(url) as opened:
        yield opened


@pytest.fixture
def store(backend: Backend) -> OutputStore:
    """Room for three long outputs a task."""
    return OutputStore(backend.state, keep_s=60, max_chars=3 * len(LONG))


def talker(text: str = LONG, **options: Any) -> Tool:
    """A tool that says `text`."""

    def talk() -> str:
        """Talk."""
        return text

    return python_tool(talk, **options)


def catalogue_of(*tools: Tool) -> ToolCatalogue:
    """These tools, and the one that reads on."""
    return ToolCatalogue(tools=[*tools, ReadOutput()])


async def read(catalogue: ToolCatalogue, context: ToolContext, **arguments: Any) -> ToolOutcome:
    """Read on, as a model does."""
    return await call(catalogue, "read_output", json.dumps({"call_id": "call-1", **arguments}), context)


async def test_a_long_output_can_be_read_to_its_end(store: OutputStore) -> None:
    """The model sees the beginning and where the rest is, and the pages make the whole."""
    catalogue = catalogue_of(talker())
    context = ToolContext(task_id="1-0", outputs=store.of("1-0"))

    outcome = await call(catalogue, "talk", context=context)

    note = (
        f"[output cut: {len(LONG)} characters, the first 100000 are shown; "
        "all of it is stored as output:call-1: read on with read_output]"
    )
    assert outcome.content == f"{LONG[:100_000]}\n{note}"
    pages, offset = [outcome.content[:100_000]], 100_000
    while offset < len(LONG):
        page = await read(catalogue, context, offset=offset, limit=50_000)
        text, _, where = page.content.rpartition("\n[")
        pages.append(text)
        assert where.startswith(f"characters {offset} to {offset + len(text)} of {len(LONG)}")
        assert (f"go on with offset {offset + len(text)}" in where) == (offset + len(text) < len(LONG))
        offset += len(text)
    assert "".join(pages) == LONG


async def test_pages_may_begin_and_end_anywhere(store: OutputStore) -> None:
    """Over the pieces' borders, and in the form that the note has."""
    catalogue = catalogue_of(talker())
    context = ToolContext(task_id="1-0", outputs=store.of("1-0"))
    await call(catalogue, "talk", context=context)
    for offset, limit in ((0, 1), (PIECE_CHARS - 3, 6), (PIECE_CHARS, 1), (2 * PIECE_CHARS - 1, 2), (len(LONG) - 1, 9)):
        page = await read(catalogue, context, offset=offset, limit=limit, call_id="output:call-1")
        assert page.content.rpartition("\n[")[0] == LONG[offset : offset + limit]


async def test_a_short_output_is_not_stored(store: OutputStore) -> None:
    """What the model has read whole is nowhere else."""
    catalogue = catalogue_of(talker("short"))
    context = ToolContext(task_id="1-0", outputs=store.of("1-0"))
    assert (await call(catalogue, "talk", context=context)).content == "short"
    assert await store.of("1-0").kept() == {}
    assert (await read(catalogue, context)).is_error


async def test_errors_and_structured_answers_are_kept_too(store: OutputStore) -> None:
    """Whatever the text comes from."""

    async def report() -> ToolResult:
        """Report."""
        return ToolResult(structured={"lines": ["x" * 50] * 10_000}, is_error=True)

    catalogue = catalogue_of(python_tool(report))
    context = ToolContext(task_id="1-0", outputs=store.of("1-0"))
    outcome = await call(catalogue, "report", context=context)
    assert (outcome.is_error, outcome.structured) == (True, None)
    text = "".join([piece async for piece in store.of("1-0").whole("call-1")])
    assert json.loads(text) == {"lines": ["x" * 50] * 10_000}


async def test_images_that_are_left_out_are_said(store: OutputStore) -> None:
    """Pictures have limits of their own, beside a long text."""

    async def draw() -> ToolResult:
        """Draw."""
        return ToolResult(text=LONG, images=tuple(ImagePart(media_type="image/png", data="x") for _ in range(11)))

    outcome = await call(catalogue_of(python_tool(draw)), "draw", context=ToolContext(outputs=store.of("1-0")))
    assert len(outcome.images) == 10
    assert "stored as output:call-1" in outcome.content
    assert outcome.content.endswith("[1 image(s) left out: too large or too many]")


async def test_a_task_reads_only_its_own_outputs(store: OutputStore) -> None:
    """Whatever a model writes as the id of a call, another task's output is out of reach."""
    catalogue = catalogue_of(talker())
    await call(catalogue, "talk", context=ToolContext(task_id="1-0", outputs=store.of("1-0")))
    for task_id, call_id in (
        ("2-0", "call-1"),
        ("2-0", "../1-0/call-1"),
        ("1", "0/call-1"),
        ("1-0/call-1", "0"),
        ("", "1-0/call-1"),
    ):
        context = ToolContext(task_id=task_id, outputs=store.of(task_id))
        refused = await read(catalogue, context, call_id=call_id)
        assert refused.content == f"read_output: no output {call_id!r} of this task is stored: see the note's id"


async def test_ids_of_any_text(store: OutputStore) -> None:
    """Ids are the model's own: each has its output, and none meets another's."""
    kept = store.of("1-0")
    ids = ["a", "a#0", "a/b", "", " ", "ü", "x" * 5000]
    for call_id in ids:
        await kept.keep(call_id, f"text of {call_id}")
    for call_id in ids:
        page = await kept.read(call_id, 0, 10_000)
        assert page is not None
        assert page.text == f"text of {call_id}"


async def test_a_task_has_so_much_room(store: OutputStore) -> None:
    """Beyond its room a task's outputs are only cut, and it says so; another task has its own room."""
    catalogue = catalogue_of(talker())
    context = ToolContext(task_id="1-0", outputs=store.of("1-0"))
    for number in range(3):
        await store.of("1-0").keep(f"earlier-{number}", LONG)
    outcome = await call(catalogue, "talk", context=context)
    assert outcome.content.endswith(
        f"are shown; it could not be stored: the task has as many characters of outputs stored as it may "
        f"({3 * len(LONG)})]"
    )
    assert (
        "all of it is stored"
        in (await call(catalogue, "talk", context=ToolContext(task_id="2-0", outputs=store.of("2-0")))).content
    )


async def test_an_output_beyond_all_room_is_kept_in_part(backend: Backend) -> None:
    """As much as there is room for, and both notes say how much that is."""
    store = OutputStore(backend.state, keep_s=60, max_chars=PIECE_CHARS + 10)
    catalogue = catalogue_of(talker())
    context = ToolContext(task_id="1-0", outputs=store.of("1-0"))
    outcome = await call(catalogue, "talk", context=context)
    assert f"the first {PIECE_CHARS + 10} are stored as output:call-1: read on with read_output]" in outcome.content
    last = await read(catalogue, context, offset=PIECE_CHARS)
    assert last.content == (
        f"{LONG[PIECE_CHARS : PIECE_CHARS + 10]}\n"
        f"[characters {PIECE_CHARS} to {PIECE_CHARS + 10} of {len(LONG)}; the rest was not stored]"
    )
    beyond = await read(catalogue, context, offset=PIECE_CHARS + 10)
    assert (
        beyond.content == f"read_output: offset {PIECE_CHARS + 10} is beyond the {PIECE_CHARS + 10} stored characters"
    )


async def test_a_repeated_call_takes_its_room_once(store: OutputStore) -> None:
    """A call that is made again after a crash replaces what it had stored."""
    for _ in range(10):
        await store.of("1-0").keep("call-1", LONG)
    await store.of("1-0").keep("call-1", "shorter")
    page = await store.of("1-0").read("call-1", 0, 100)
    assert page is not None
    assert (page.text, page.chars) == ("shorter", 7)
    assert await store.of("1-0").kept() == {"call-1": 7}


async def test_everything_that_is_stored_expires(valkey_server: Server, stream: str) -> None:
    """No key of an output outlives its time."""
    import redis.asyncio

    async with await open_backend(valkey_server.url(stream)) as backend:
        await OutputStore(backend.state, keep_s=60, max_chars=len(LONG)).of("1-0").keep("call-1", LONG)
        async with redis.asyncio.Redis.from_url(valkey_server.url()) as raw:
            keys = [key async for key in raw.scan_iter(f"{stream}:state:*")]
            assert len(keys) == 2 + -(-len(LONG) // PIECE_CHARS)
            for key in keys:
                assert 0 < await raw.pttl(key) <= 60_000
                if await raw.type(key) == b"string":
                    assert await raw.strlen(key) <= 1024 * 1024


# The broker away


class Away:
    """A state store that cannot be reached until somebody says so."""

    def __init__(self, state: StateStore) -> None:
        self._state = state
        self.was_asked = asyncio.Event()
        self.is_back = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._state, name)

        async def guarded(*arguments: Any, **options: Any) -> Any:
            self.was_asked.set()
            if not self.is_back:
                raise BackendUnavailable("away")
            return await method(*arguments, **options)

        return guarded


@pytest.fixture
async def away() -> AsyncIterator[Away]:
    """A store that is away."""
    async with await open_backend("memory://") as opened:
        yield Away(opened.state)


async def test_an_output_waits_for_the_broker(away: Any) -> None:
    """The call ends when its output is stored."""
    store = OutputStore(away, keep_s=60, max_chars=len(LONG))
    context = ToolContext(task_id="1-0", outputs=store.of("1-0"))
    calling = asyncio.ensure_future(call(catalogue_of(talker()), "talk", context=context))
    await asyncio.wait_for(away.was_asked.wait(), 5)
    assert not calling.done()
    away.is_back = True
    assert "all of it is stored as output:call-1" in (await asyncio.wait_for(calling, 10)).content


async def test_the_wait_is_bounded_by_the_tools_own_limit(away: Any) -> None:
    """A broker that stays away costs the rest of the output, not the run."""
    store = OutputStore(away, keep_s=60, max_chars=len(LONG))
    context = ToolContext(task_id="1-0", outputs=store.of("1-0"))
    outcome = await call(catalogue_of(talker(timeout_s=0.2)), "talk", context=context)
    assert outcome.content.endswith("are shown; it could not be stored within 0.2 s]")
    assert not outcome.is_error
    assert store.waiting_chars == 0


async def test_what_waits_for_the_broker_is_bounded(away: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many runs have something to store, a worker holds a bounded part of it; the others are told at once."""
    monkeypatch.setattr(outputs_module, "MOST_WAITING_CHARS", 10_000)
    store = OutputStore(away, keep_s=60, max_chars=10_000)
    waiting = [asyncio.ensure_future(store.of(f"{number}-0").keep("c", "x" * 1000)) for number in range(50)]
    done, pending = await asyncio.wait(waiting, timeout=0.1)
    assert (len(done), len(pending), store.waiting_chars) == (40, 10, 10_000)
    for each in done:
        with pytest.raises(OutputNotKept, match="too many outputs are waiting"):
            each.result()
    away.is_back = True
    await asyncio.wait_for(asyncio.gather(*pending), 10)
    assert store.waiting_chars == 0


async def test_tools_wait_while_much_is_about_to_be_stored(away: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next tool is not called before there is room for what it may say; built-in ones are."""
    monkeypatch.setattr(outputs_module, "BUSY_CHARS", 100_000)
    store = OutputStore(away, keep_s=60, max_chars=10 * len(LONG))
    catalogue = ToolCatalogue(tools=[talker(), SubmitSubtask(), ReadOutput()])
    context = ToolContext(task_id="1-0", outputs=store.of("1-0"))
    first = asyncio.ensure_future(call(catalogue, "talk", context=context))
    await asyncio.wait_for(away.was_asked.wait(), 5)
    second = asyncio.ensure_future(call(catalogue, "talk", context=context))
    other = await asyncio.wait_for(call(catalogue, "submit_subtask", '{"prompt": " "}', context), 5)
    assert other.content == "submit_subtask: prompt must not be empty"
    assert store.waiting_chars == len(LONG)
    away.is_back = True
    for outcome in await asyncio.wait_for(asyncio.gather(first, second), 10):
        assert "all of it is stored" in outcome.content
    assert store.waiting_chars == 0


# What a model is offered


def test_reading_on_is_offered_with_tools_that_may_say_much() -> None:
    """It comes with any such tool, whatever the agent's choice of names, and never alone."""
    full = ToolCatalogue(tools=[talker(), SubmitSubtask(), ReadOutput()])
    assert [spec.name for spec in full.specs()] == ["submit_subtask", "read_output", "talk"]
    assert [spec.name for spec in full.specs(["talk"])] == ["read_output", "talk"]
    assert [spec.name for spec in full.specs(["submit_subtask", "read_output"])] == ["submit_subtask"]
    assert [spec.name for spec in ToolCatalogue(tools=[SubmitSubtask(), ReadOutput()]).specs()] == ["submit_subtask"]
