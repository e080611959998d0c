"""Runs that are interrupted: nothing that was paid for or done is repeated, wherever the worker stops."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

import providers
from providers import (
    AgentConfig,
    CallTool,
    ChatProvider,
    ChunkFn,
    Message,
    Overloaded,
    Role,
    StopReason,
    TextDelta,
    TextPart,
    ToolCall,
    ToolOutcome,
    ToolSpec,
    TurnEnd,
    TurnEvent,
    TurnRequest,
)
from providers.messages import Part
from queue_backends import (
    Backend,
    BackendOptions,
    CallOutcome,
    Chunk,
    ChunkType,
    Task,
    TaskResult,
    TokenUsage,
    open_backend,
)
from tests.diary_tools import TOOLS
from tests.dying import Dying
from worker.assembly import open_worker
from worker.client import Fleet, Handle
from worker.journal import AttemptEnded, ModelCall, TakenOver, read_journal
from worker.recall import NO_OUTCOME
from worker.settings import Settings, load_settings
from worker.tool_book import INTERRUPTED
from worker.usage import UsageReport

LIMIT_S = 20
OPTIONS = BackendOptions(lease_s=0.2, max_deliveries=50)
LONG_LEASES = BackendOptions(lease_s=LIMIT_S, max_deliveries=50)
"""Where nobody dies: a busy machine may stop a process for longer than a short lease."""
USAGE = TokenUsage(input_tokens=100, output_tokens=10)


class Planned(ChatProvider):
    """Three turns: two tools at once, one tool, the answer. Keeps the number of each turn that it was asked for."""

    name = "planned"
    asked: list[int]
    heard: dict[str, str]

    def __init__(self) -> None:
        self.asked, self.heard = ASKED, HEARD

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        turn = sum(message.role is Role.ASSISTANT for message in request.messages)
        self.asked.append(turn)
        for message in request.messages:
            self.heard.update({part.call_id: part.content for part in message.parts if isinstance(part, ToolOutcome)})
        text, calls = PLAN[turn]
        await asyncio.sleep(0)
        for word in text.split(" "):
            yield TextDelta(word + " ")
            await asyncio.sleep(0)
        parts: tuple[Part, ...] = (TextPart(text=text + " "), *calls)
        reason = StopReason.TOOL_USE if calls else StopReason.END_TURN
        yield TurnEnd(message=Message(role=Role.ASSISTANT, parts=parts), stop_reason=reason, usage=USAGE, model="m")


def call(number: int, name: str) -> ToolCall:
    """A call of a tool with an argument of its own."""
    return ToolCall(id=f"call-{number}", name=name, arguments=f'{{"text": "{number}"}}')


PLAN: list[tuple[str, tuple[ToolCall, ...]]] = [
    ("let me see", (call(1, "note"), call(2, "peek"))),
    ("and once more", (call(3, "note"),)),
    ("here you are", ()),
]
ANSWER = "here you are "
ASKED: list[int] = []
HEARD: dict[str, str] = {}


@pytest.fixture(autouse=True)
def planned() -> None:
    """The provider, with empty diaries."""
    ASKED.clear()
    HEARD.clear()
    providers.register("planned", Planned)


def settings_for(tools: Path | None = None, **more: Any) -> Settings:
    """A worker that runs the planned provider with the tools."""
    chosen = {"agent.model": "m", "agent.provider": "planned", "retry_base_s": 0.0, "grace_s": 0.0, **more}
    if tools is not None:
        chosen["python_tools"] = (str(tools),)
    return load_settings({}, file=None, overrides=chosen)


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    """Where the tools write what they do."""
    return tmp_path / "diary"


@pytest.fixture
def tools(tmp_path: Path, diary: Path) -> Path:
    """The file of the tools."""
    path = tmp_path / "tools.py"
    path.write_text(TOOLS.format(diary=str(diary)))
    return path


@asynccontextmanager
async def store(name: str, options: BackendOptions = OPTIONS) -> AsyncIterator[Callable[[], Awaitable[Backend]]]:
    """Opens backends on one memory store."""
    async with await open_backend(f"memory://{name}", options):

        async def another() -> Backend:
            return await open_backend(f"memory://{name}", options)

        yield another


async def ended(backend: Backend, task_id: str) -> tuple[TaskResult, list[Chunk]]:
    """The task's result and all its chunks."""
    async with asyncio.timeout(LIMIT_S):
        chunks = [chunk async for chunk in Handle(backend, task_id)]
        return await Handle(backend, task_id).result(), chunks


async def killed_at(
    number: int, when: Literal["before", "after"], settings: Settings, name: str
) -> tuple[bool, int, TaskResult, list[Chunk], Backend]:
    """Run a task with a worker that dies at a write, and then one that does not. Says whether the first one died, how
    many model calls it had made, how the task ended, and a backend to look at."""
    async with store(name) as another:
        dying = Dying(await another(), number, when)
        backend = await another()
        task_id = (await Fleet(backend).submit("go")).id
        finished = asyncio.create_task(Handle(backend, task_id).result())
        async with asyncio.timeout(LIMIT_S), open_worker(settings, dying):
            dead = asyncio.create_task(dying.dead.wait())
            await asyncio.wait([finished, dead], return_when=asyncio.FIRST_COMPLETED)
            dead.cancel()
        asked = len(ASKED)
        async with open_worker(settings, await another()):
            result, chunks = await ended(backend, task_id)
            await finished
        return dying.dead.is_set(), asked, result, chunks, backend


def shown(chunks: Sequence[Chunk]) -> dict[int, list[tuple[ChunkType, str]]]:
    """What a consumer shows of each turn: joined text, and tool events by call id."""
    turns: dict[int, list[Chunk]] = {}
    for chunk in chunks:
        turns.setdefault(chunk.turn, []).append(chunk)
    result = {}
    for turn, parts in turns.items():
        last = max(chunk.attempt for chunk in parts)
        kept = [chunk for chunk in parts if chunk.attempt == last and not chunk.is_final]
        text = "".join(chunk.content for chunk in kept if chunk.type is ChunkType.CONTENT)
        events = [(c.type, str(c.metadata["id"])) for c in kept if c.type is not ChunkType.CONTENT]
        result[turn] = [(ChunkType.CONTENT, text), *sorted(events)]
    return result


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_that_dies_at_any_write_repeats_nothing(
    when: Literal["before", "after"], tools: Path, diary: Path
) -> None:
    """Killed before or after each of its writes in turn: whoever goes on asks the model for no turn that is stored, and
    calls no tool again that has answered; what may have taken effect is reported as such; consumers see every turn
    once; and each model call that was sent is in the books."""
    settings = settings_for(tools)
    for number in itertools.count(1):
        ASKED.clear()
        HEARD.clear()
        diary.write_text("")
        died, asked_before, result, chunks, backend = await killed_at(number, when, settings, f"kill-{when}-{number}")
        where = f"killed {when} write {number}"
        entries = [moment.entry for moment in await read_journal(backend.state, result.task_id)]
        takers = {entry.worker for entry in entries if isinstance(entry, TakenOver)}
        stored = {e.turn for e in entries if isinstance(e, ModelCall) and e.end and e.worker not in takers}
        assert result.output == ANSWER, where
        assert not stored & set(ASKED[asked_before:]), where
        effects = Counter(diary.read_text().splitlines())
        assert max(effects["note 1"], effects["note 3"]) <= 1, where
        for call_id, effect in (("call-1", "note 1"), ("call-3", "note 3")):
            assert HEARD[call_id] in ("noted " + effect[-1], INTERRUPTED), where
            assert effects[effect] == 1 or HEARD[call_id] == INTERRUPTED, where
        assert HEARD["call-2"] == "saw 2", where
        assert [chunk.seq for chunk in chunks] == list(range(len(chunks))), where
        assert [chunk.is_final for chunk in chunks].count(True) == 1, where
        assert shown(chunks) == EVERYTHING_ONCE, where
        records = await UsageReport(backend.state).recent()
        assert Counter(int(r.id.split(":")[1]) for r in records) - Counter(ASKED) <= Counter(lost(records)), where
        assert Counter(ASKED) <= Counter(int(record.id.split(":")[1]) for record in records), where
        await backend.close()
        if not died:
            assert ASKED == [0, 1, 2]
            assert number > 6  # it did die at every write there is
            return


EVERYTHING_ONCE = {
    0: [
        (ChunkType.CONTENT, "let me see "),
        (ChunkType.TOOL_CALL, "call-1"),
        (ChunkType.TOOL_CALL, "call-2"),
        (ChunkType.TOOL_RESULT, "call-1"),
        (ChunkType.TOOL_RESULT, "call-2"),
    ],
    1: [
        (ChunkType.CONTENT, "and once more "),
        (ChunkType.TOOL_CALL, "call-3"),
        (ChunkType.TOOL_RESULT, "call-3"),
    ],
    2: [(ChunkType.CONTENT, ANSWER)],
}


def lost(records: Sequence[Any]) -> list[int]:
    """The turns of calls of which nobody knows what became."""
    return [int(record.id.split(":")[1]) for record in records if record.outcome is CallOutcome.LOST]


async def test_a_retry_goes_on_where_the_attempt_failed(tools: Path, diary: Path, monkeypatch: Any) -> None:
    """A provider that is overloaded in the third turn: the retry asks for that turn alone, and the result counts the
    tokens of all."""
    original = Planned.stream_turn
    failures = iter([True])

    async def failing_once(self: Planned, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        if request.turn == 2 and next(failures, False):
            ASKED.append(2)
            raise Overloaded("busy")
        async for event in original(self, request):
            yield event

    monkeypatch.setattr(Planned, "stream_turn", failing_once)
    async with store("retry", LONG_LEASES) as another, open_worker(settings_for(tools), await another()):
        backend = await another()
        result, chunks = await ended(backend, (await Fleet(backend).submit("go")).id)
        entries = [moment.entry for moment in await read_journal(backend.state, result.task_id)]
    assert ASKED == [0, 1, 2, 2]
    assert sorted(diary.read_text().splitlines()) == ["note 1", "note 3", "peek 2"]
    assert result.output == ANSWER
    assert result.usage == USAGE + USAGE + USAGE
    assert shown(chunks) == EVERYTHING_ONCE
    assert [(entry.how, entry.error) for entry in entries if isinstance(entry, AttemptEnded)] == [("retry", "busy")]


async def test_a_requeued_task_goes_on_and_is_shown_from_the_start(tools: Path, diary: Path, monkeypatch: Any) -> None:
    """A dead letter that is brought back repeats no finished turn and no tool; its new stream shows all of it; its
    model calls count beside those from before."""
    original = Planned.stream_turn
    failures = iter([True])

    async def failing_once(self: Planned, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        if request.turn == 2 and next(failures, False):
            raise Overloaded("busy")
        async for event in original(self, request):
            yield event

    monkeypatch.setattr(Planned, "stream_turn", failing_once)
    async with (
        store("requeue", LONG_LEASES) as another,
        open_worker(settings_for(tools, max_retries=0), await another()),
    ):
        backend = await another()
        task_id = (await Fleet(backend).submit("go")).id
        dead, _ = await ended(backend, task_id)
        (letter,) = await backend.queue.dead_letters()
        await backend.queue.requeue([letter.id])
        result, chunks = await ended(backend, task_id)
        records = await UsageReport(backend.state).recent()
    assert dead.error == "busy"
    assert dead.usage == USAGE + USAGE
    assert ASKED == [0, 1, 2]
    assert sorted(diary.read_text().splitlines()) == ["note 1", "note 3", "peek 2"]
    assert (result.output, result.usage) == (ANSWER, USAGE + USAGE + USAGE)
    assert shown(chunks) == EVERYTHING_ONCE
    outcomes = Counter((int(record.id.split(":")[1]), record.outcome.value) for record in records)
    assert outcomes == {(0, "completed"): 1, (1, "completed"): 1, (2, "failed"): 1, (2, "completed"): 1}


async def test_a_task_that_is_handed_back_goes_on_elsewhere(tools: Path, diary: Path, monkeypatch: Any) -> None:
    """A worker that leaves in the middle of the second turn: the next one asks for that turn, not for the first."""
    original = Planned.stream_turn
    reached, hanging = asyncio.Event(), iter([True])

    async def hanging_once(self: Planned, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        async for event in original(self, request):
            yield event
            if request.turn == 1 and next(hanging, False):
                reached.set()
                await asyncio.Event().wait()

    monkeypatch.setattr(Planned, "stream_turn", hanging_once)
    async with store("handed back") as another:
        backend = await another()
        task_id = (await Fleet(backend).submit("go")).id
        async with asyncio.timeout(LIMIT_S), open_worker(settings_for(tools), await another()):
            await reached.wait()
        async with open_worker(settings_for(tools), await another()):
            result, chunks = await ended(backend, task_id)
        records = await UsageReport(backend.state).recent()
    assert ASKED == [0, 1, 1, 2]
    assert sorted(diary.read_text().splitlines()) == ["note 1", "note 3", "peek 2"]
    assert result.output == ANSWER
    assert shown(chunks) == EVERYTHING_ONCE
    assert sorted(record.outcome.value for record in records) == ["cancelled", "completed", "completed", "completed"]


async def test_a_provider_of_whole_tasks_repeats_no_finished_tool(tools: Path, diary: Path) -> None:
    """Its model calls are its own affair, but tools that have answered an earlier run answer the same again, and one
    that was interrupted is reported as such."""
    heard: list[list[str]] = []
    stuck = asyncio.Event()

    class Whole:
        name = "whole"

        async def run_task(
            self, config: AgentConfig, task: Task, specs: list[ToolSpec], call_tool: CallTool, chunk_fn: ChunkFn
        ) -> tuple[str, TokenUsage]:
            run = len(heard)
            heard.append([])
            for number, name in enumerate(("note", "peek", "note")):
                asked = ToolCall(id=f"{run}-{number}", name=name, arguments=f'{{"text": "{number}"}}')
                heard[-1].append((await call_tool(asked)).content)
            if run == 0:
                stuck.set()
                await asyncio.Event().wait()
            return "done", USAGE

    providers.register("whole", Whole)  # type: ignore[arg-type]  # a class with the protocol's shape
    settings = settings_for(tools, **{"agent.provider": "whole"})
    async with store("whole") as another:
        backend = await another()
        task_id = (await Fleet(backend).submit("go")).id
        async with asyncio.timeout(LIMIT_S), open_worker(settings, await another()):
            await stuck.wait()
        async with open_worker(settings, await another()):
            result, _ = await ended(backend, task_id)
    assert heard == [["noted 0", "saw 1", "noted 2"]] * 2
    assert diary.read_text().splitlines() == ["note 0", "peek 1", "note 2"]
    assert result.output == "done"


async def test_a_journal_lives_as_long_as_the_result(tools: Path) -> None:
    """It is there for whoever looks at an ended task, and it expires when the result does."""
    options = BackendOptions(lease_s=5, result_retention_s=1)
    async with await open_backend("memory://", options) as backend:
        settings = load_settings(
            {},
            file=None,
            overrides={
                "agent.model": "m",
                "agent.provider": "planned",
                "python_tools": (str(tools),),
                "backend.result_retention_s": 1,
            },
        )
        async with open_worker(settings, backend):
            result, _ = await ended(backend, (await Fleet(backend).submit("go")).id)
        assert await backend.state.read_log(f"journal/{result.task_id}")
        async with asyncio.timeout(LIMIT_S):
            while await backend.state.read_log(f"journal/{result.task_id}"):
                await asyncio.sleep(0.05)


async def test_without_a_journal_a_run_starts_over(tools: Path, diary: Path) -> None:
    """What `SHOAL_JOURNAL=false` means."""
    died, asked, result, _, backend = await killed_at(3, "after", settings_for(tools, journal=False), "no journal")
    await backend.close()
    assert died
    assert asked >= 1
    assert ASKED[asked:] == [0, 1, 2]
    assert result.output == ANSWER


async def test_a_cancelled_run_leaves_a_conversation_to_go_on_with(tools: Path, tmp_path: Path) -> None:
    """Its finished turns are there, and the call that was under way is closed; the next task takes them as history."""
    hanging = tmp_path / "hanging.py"
    hanging.write_text(
        "import asyncio\nfrom pathlib import Path\nfrom worker import tool\n"
        f"@tool\nasync def peek(text: str) -> str:\n    '''Hang.'''\n"
        f"    Path({str(tmp_path / 'reached')!r}).touch()\n    await asyncio.Event().wait()\n    return text\n"
    )
    settings = settings_for(None, python_tools=(str(hanging),))
    async with (
        asyncio.timeout(LIMIT_S),
        store("conversation", LONG_LEASES) as another,
        open_worker(settings, await another()),
    ):
        backend = await another()
        fleet = Fleet(backend)
        handle = await fleet.submit("go")
        async for chunk in handle:
            if chunk.type is ChunkType.TOOL_RESULT:
                break
        await handle.cancel()
        await handle.result()
        messages = await handle.messages()
        follow_up = await fleet.submit("and now?", history=[{"role": "user", "content": "go"}, *messages])
        result = await follow_up.result()
        added = await follow_up.messages()
    assert [message["role"] for message in messages] == ["assistant", "user"]
    contents = {part["call_id"]: part["content"] for part in messages[1]["parts"]}
    assert contents["call-1"].startswith('tool "note" not found')
    assert contents["call-2"] == NO_OUTCOME
    assert [message["role"] for message in added] == ["assistant", "user", "assistant"]
    assert added[-1] == {"role": "assistant", "parts": [{"type": "text", "text": result.output}]}
