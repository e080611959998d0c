"""Plugins whose worker dies: nothing that was paid for or done is repeated, and nothing is shown twice."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from msgspec.structs import replace

import providers
from providers import (
    ChatProvider,
    InvalidRequest,
    Message,
    StopReason,
    TextDelta,
    TextPart,
    ToolCall,
    ToolOutcome,
    TurnEnd,
    TurnEvent,
    TurnRequest,
)
from queue_backends import Backend, BackendOptions, CallOutcome, Chunk, Task, TokenUsage, open_backend
from tests.agent_plugins.plugin_folders import write_plugin
from tests.diary_tools import TOOLS
from tests.dying import Dying
from worker.agents.model import Agent
from worker.assembly import open_worker
from worker.cli.turns import Turns, Verdict
from worker.client import Fleet, Handle
from worker.definitions import Definitions
from worker.journal import ModelCall, PluginStep, TakenOver, read_journal
from worker.settings import Settings, load_settings
from worker.tool_book import INTERRUPTED
from worker.usage import UsageReport

LIMIT_S = 30
PATIENT = BackendOptions(lease_s=10)
IMPATIENT = BackendOptions(lease_s=0.2, max_deliveries=50)
"""For workers that die: somebody else gets their task soon."""
USAGE = TokenUsage(input_tokens=100, output_tokens=10)
ASKED: list[str] = []

SEQUENTIAL = """
async def handle_message(self, request, stream):
    await stream.thinking("planning")
    plan = await self.services.call_llm("plan")
    await stream.content(f"plan: {plan.text}; ")
    noted = await self.services.execute_tool("note", {"text": "A"}, stream_to=stream)
    count = int((await self.services.kv.get("count") or b"0").decode()) + 1
    await self.services.kv.set("count", str(count))
    await stream.content("looking; ")
    looked = await self.services.call_llm("look", tools="auto", stream_to=stream)
    await stream.content(f"; {looked.text.upper()}, {'noted' in noted.content or 'interrupted' in noted.content}; ")
    parts = await asyncio.gather(*(self.services.call_llm(f"part {n}") for n in (1, 2)))
    await stream.content(" ".join(part.text for part in parts))
    await self.services.call_llm("end", stream_to=stream)
"""
OUTPUT = (
    "plan: answer to plan; looking; answer to look; ANSWER TO LOOK, True; answer to part 1 answer to part 2"
    "answer to end"
)


class Told(ChatProvider):
    """Answers every prompt with a text of its own; asks for the tool `peek` first if it may."""

    name = "told"

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        prompt = next(message.text for message in request.messages if message.text)
        has_looked = any(isinstance(part, ToolOutcome) for message in request.messages for part in message.parts)
        ASKED.append(f"{prompt}/{request.turn}")
        await asyncio.sleep(0)
        if prompt == "refused once" and ASKED.count(ASKED[-1]) == 1:
            raise InvalidRequest("not yet")
        if prompt == "slow once" and ASKED.count(ASKED[-1]) == 1:
            yield TextDelta("half an ")
            await asyncio.Event().wait()
        if request.tools and not has_looked:
            yield TextDelta("let me see ")
            call = ToolCall(id="c", name="peek", arguments='{"text": "B"}')
            parts: tuple[Any, ...] = (TextPart(text="let me see "), call)
            yield TurnEnd(
                message=Message(role=providers.Role.ASSISTANT, parts=parts),
                stop_reason=StopReason.TOOL_USE,
                usage=USAGE,
                model="m",
            )
            return
        words = ["answer ", "to ", prompt]
        for word in words:
            yield TextDelta(word)
            await asyncio.sleep(0)
        yield TurnEnd(
            message=Message.assistant("".join(words)), stop_reason=StopReason.END_TURN, usage=USAGE, model="m"
        )


@pytest.fixture(autouse=True)
def told() -> None:
    """The provider, with an empty diary."""
    ASKED.clear()
    providers.register("told", Told)


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    """Where the tools write what they do."""
    return tmp_path / "diary"


@pytest.fixture
def settings(tmp_path: Path, diary: Path) -> Settings:
    """Workers with the tools and the plugins."""
    tools = tmp_path / "tools.py"
    tools.write_text(TOOLS.format(diary=str(diary)))
    overrides = {
        "agent.model": "m",
        "agent.provider": "told",
        "retry_base_s": 0.0,
        "grace_s": 0.0,
        "python_tools": (str(tools),),
        "agent_plugins_dir": str(tmp_path / "plugins"),
    }
    return load_settings({}, file=None, overrides=overrides)


@asynccontextmanager
async def store(name: str, options: BackendOptions = PATIENT) -> AsyncIterator[Any]:
    """Opens backends on one memory store, in which the agent `bot` is declared."""
    async with await open_backend(f"memory://{name}", options) as first:

        async def another() -> Backend:
            return await open_backend(f"memory://{name}", options)

        async with Definitions(first.state) as declared:
            await declared.agents.create(Agent(slug="bot", plugin="test-agent"))
        yield another


async def killed_at(
    number: int, when: Literal["before", "after"], settings: Settings, name: str
) -> tuple[bool, int, Any, list[Chunk], Backend]:
    """Answer a message with a worker that dies at a write, and then one that does not."""
    async with store(name, IMPATIENT) as another:
        dying = Dying(await another(), number, when)
        backend = await another()
        task_id = (await Fleet(backend).submit(Task(prompt="go", agent="bot"))).id
        finished = asyncio.create_task(Handle(backend, task_id).result(LIMIT_S))
        async with asyncio.timeout(LIMIT_S), open_worker(settings, dying):
            dead = asyncio.create_task(dying.dead.wait())
            await asyncio.wait([finished, dead], return_when=asyncio.FIRST_COMPLETED)
            dead.cancel()
        asked = len(ASKED)
        async with open_worker(settings, await another()):
            async with asyncio.timeout(LIMIT_S):
                chunks = [chunk async for chunk in Handle(backend, task_id)]
            result = await finished
        return dying.dead.is_set(), asked, result, chunks, backend


def seen(chunks: Sequence[Chunk]) -> list[tuple[str, str]]:
    """What a consumer has before it that follows the one rule of turns, without the final chunk: (kind, text)."""
    turns = Turns()
    shown: list[tuple[int, str, str]] = []
    for chunk in chunks:
        verdict = turns.judge(chunk)
        assert verdict is not Verdict.SKIP, "a chunk of an earlier section came late"
        if verdict is Verdict.RESTART:
            shown = [each for each in shown if each[0] != chunk.turn]
        if not chunk.is_final:
            shown.append((chunk.turn, chunk.type, chunk.content))
    joined: list[tuple[str, str]] = []
    for _, kind, content in shown:
        if joined and joined[-1][0] == kind and kind in ("CONTENT", "THINKING"):
            joined[-1] = (kind, joined[-1][1] + content)
        elif content:
            joined.append((kind, content))
    return joined


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_that_dies_at_any_write_repeats_nothing(
    when: Literal["before", "after"], settings: Settings, diary: Path, tmp_path: Path
) -> None:
    """Killed before or after each of its writes in turn: whoever goes on makes no model call again whose answer is
    stored, calls no tool again that has answered, counts its counter up once; consumers see everything once; and every
    model call that was sent is in the books."""
    write_plugin(tmp_path / "plugins", SEQUENTIAL)
    # A write that did not happen leaves what the one before it left: a few of these are enough.
    for number in itertools.count(1, 1 if when == "after" else 8):
        ASKED.clear()
        diary.write_text("")
        died, _, result, chunks, backend = await killed_at(number, when, settings, f"plugin-{when}-{number}")
        where = f"killed {when} write {number}"
        entries = [moment.entry for moment in await read_journal(backend.state, result.task_id)]
        takers = {entry.worker for entry in entries if isinstance(entry, TakenOver)}
        stored = {e.turn for e in entries if isinstance(e, ModelCall) and e.end and e.worker not in takers}
        repeated = {e.turn for e in entries if isinstance(e, ModelCall) and e.end and e.worker in takers}
        assert not stored & repeated, where
        assert result.error == "", where
        assert result.output == OUTPUT, where
        effects = Counter(diary.read_text().splitlines())
        assert effects["note A"] <= 1, where
        assert [(k, "noted A" if text == INTERRUPTED else text) for k, text in seen(chunks)] == EVERYTHING_ONCE, where
        assert [chunk.seq for chunk in chunks] == list(range(len(chunks))), where
        assert [chunk.is_final for chunk in chunks].count(True) == 1, where
        kept = [value async for key, value in backend.state.scan("agent_plugins/kv/")]
        assert kept == [b"1"], where
        records = await UsageReport(backend.state).recent()
        sent = [record for record in records if record.outcome is not CallOutcome.LOST]
        assert len(ASKED) <= len(records), where
        assert len({record.id for record in records}) == len(records), where
        assert len(sent) <= len(ASKED), where
        assert len([step for step in entries if isinstance(step, PluginStep)]) == 8, where
        lost = {int(r.id.split(":")[1]) for r in records if r.outcome is CallOutcome.LOST}
        assert lost <= repeated, where
        await backend.close()
        if not died:
            assert ASKED == ["plan/0", "look/0", "look/1", "part 1/0", "part 2/0", "end/0"]
            assert number > 15  # it did die at every write there is
            return


EVERYTHING_ONCE = [
    ("THINKING", "planning"),
    ("CONTENT", "plan: answer to plan; "),
    ("TOOL_CALL", "note"),
    ("TOOL_RESULT", "noted A"),
    ("CONTENT", "looking; let me see "),
    ("TOOL_CALL", "peek"),
    ("TOOL_RESULT", "saw B"),
    ("CONTENT", "answer to look; ANSWER TO LOOK, True; answer to part 1 answer to part 2answer to end"),
]


async def message_of(another: Any, settings: Settings) -> tuple[Any, list[Chunk], Backend]:
    """Ask `bot` on a worker of its own, and wait for the end."""
    backend = await another()
    async with asyncio.timeout(LIMIT_S), open_worker(settings, await another()):
        handle = await Fleet(backend).submit(Task(prompt="go", agent="bot"))
        chunks = [chunk async for chunk in handle]
        return await handle.result(), chunks, backend


async def test_a_plugin_that_asks_for_something_else_goes_on_from_there(settings: Settings, tmp_path: Path) -> None:
    """Given a plugin whose second question is another one when it is run again, then the answers before it are those of
    the record, that one and what comes after it are asked for anew, and every call that was made stays accounted."""
    write_plugin(
        tmp_path / "plugins",
        """
        tries = 0

        async def handle_message(self, request, stream):
            self.tries += 1
            texts = []
            for question in ("a", f"b{self.tries}", "c"):
                texts.append((await self.services.call_llm(question)).text)
            if self.tries == 1:
                raise ValueError("again")
            await stream.content(", ".join(texts))
        """,
    )
    async with store("mismatch") as another:
        result, _, backend = await message_of(another, settings)
        records = await UsageReport(backend.state).recent()
    assert ASKED == ["a/0", "b1/0", "c/0", "b2/0", "c/0"]
    assert result.output == "answer to a, answer to b2, answer to c"
    assert len({record.id for record in records}) == 5
    assert result.usage == TokenUsage(input_tokens=500, output_tokens=50)


async def test_keys_find_their_answers_in_any_order(settings: Settings, tmp_path: Path) -> None:
    """Given calls with keys that are begun in another order when the plugin is run again, then none is repeated; the
    same key twice is refused."""
    write_plugin(
        tmp_path / "plugins",
        """
        tries = 0

        async def handle_message(self, request, stream):
            self.tries += 1
            names = ["x", "y", "z"][:: 1 if self.tries == 1 else -1]
            for name in names:
                await self.services.call_llm(f"tell {name}", key=name)
            if self.tries == 1:
                raise ValueError("again")
            try:
                await self.services.call_llm("more", key="x")
            except Exception as error:
                await stream.content(str(error))
        """,
    )
    async with store("keys") as another:
        result, _, _ = await message_of(another, settings)
    assert ASKED == ["tell x/0", "tell y/0", "tell z/0"]
    assert result.output == "the key 'x' was used for another step of this message: use each key once"


async def test_an_error_that_the_plugin_has_caught_is_tried_again_by_a_retry(
    settings: Settings, tmp_path: Path
) -> None:
    """Given a plugin that has caught a refusal and gone another way, when its attempt fails after that, then the retry
    asks again: what failed may succeed now, and what had succeeded is not repeated."""
    write_plugin(tmp_path / "plugins", CATCHING.format(mark=str(tmp_path / "mark"), fails="raise ValueError('again')"))
    async with store("errors") as another:
        result, _, _ = await message_of(another, settings)
    assert ASKED == ["refused once/0", "always/0", "refused once/0"]
    assert result.output == "answer to refused once, answer to always"


async def after_a_crash_at_the_mark(settings: Settings, mark: Path, name: str) -> tuple[Any, Backend]:
    """Run the plugin with a worker that dies when it has made its mark, and then with one that does not."""
    async with store(name, IMPATIENT) as another:
        dying, backend = Dying(await another(), 1_000_000, "before"), await another()
        handle = await Fleet(backend).submit(Task(prompt="go", agent="bot"))
        async with asyncio.timeout(LIMIT_S):
            async with open_worker(settings, dying):
                while not mark.exists():
                    await asyncio.sleep(0.01)
                dying.dead.set()
            async with open_worker(settings, await another()):
                return await handle.result(LIMIT_S), backend


async def test_an_error_that_the_plugin_has_caught_is_met_again_after_a_crash(
    settings: Settings, tmp_path: Path
) -> None:
    """Given the same, when the worker dies instead, then the plugin meets the same refusal again, and goes the same way
    without asking anybody."""
    mark = tmp_path / "mark"
    write_plugin(tmp_path / "plugins", CATCHING.format(mark=str(mark), fails="await asyncio.Event().wait()"))
    result, _ = await after_a_crash_at_the_mark(settings, mark, "errors after a crash")
    assert ASKED == ["refused once/0", "always/0"]
    assert result.output == "InvalidRequest: not yet, answer to always"


async def test_a_crash_right_after_a_step_repeats_nothing_of_it(settings: Settings, tmp_path: Path) -> None:
    """Given a plugin that has raised a counter, and been told which tool to call, when its worker dies before anything
    else happens, then the counter is not raised again, and the model is not asked again."""
    mark = tmp_path / "mark"
    write_plugin(
        tmp_path / "plugins",
        f"""
        async def handle_message(self, request, stream):
            count = int(await self.services.kv.get("count") or b"0") + 1
            await self.services.kv.set("count", str(count))
            if not Path({str(mark)!r}).exists():
                Path({str(mark)!r}).touch()
                await asyncio.Event().wait()
            answer = await self.services.call_llm("which", tools=["peek"])
            if not Path({str(mark) + "2"!r}).exists():
                Path({str(mark) + "2"!r}).touch()
                await asyncio.Event().wait()
            await stream.content(f"{{count}} {{answer.tool_calls[0].name}}")
        """,
    )
    async with store("right after", IMPATIENT) as another:
        backend = await another()
        handle = await Fleet(backend).submit(Task(prompt="go", agent="bot"))
        async with asyncio.timeout(LIMIT_S):
            for made in (mark, Path(f"{mark}2")):
                dying = Dying(await another(), 1_000_000, "before")
                async with open_worker(settings, dying):
                    while not made.exists():
                        await asyncio.sleep(0.01)
                    dying.dead.set()
            async with open_worker(settings, await another()):
                result = await handle.result(LIMIT_S)
        kept = [value async for _, value in backend.state.scan("agent_plugins/kv/")]
    assert (result.output, kept) == ("1 peek", [b"1"])
    assert ASKED == ["which/0"]


CATCHING = """
async def handle_message(self, request, stream):
    try:
        first = (await self.services.call_llm("refused once")).text
    except Exception as error:
        first = f"{{type(error).__name__}}: {{error}}"
    second = (await self.services.call_llm("always")).text
    mark = Path({mark!r})
    if not mark.exists():
        mark.touch()
        {fails}
    await stream.content(f"{{first}}, {{second}}")
"""


async def test_a_requeued_message_repeats_nothing_and_is_shown_from_the_start(
    settings: Settings, tmp_path: Path
) -> None:
    """Given a message that was given up, when its dead letter is brought back, then the model is asked only for what is
    missing, and the new stream shows everything."""
    write_plugin(
        tmp_path / "plugins",
        f"""
        async def handle_message(self, request, stream):
            await stream.content("so: ")
            await self.services.call_llm("first", stream_to=stream)
            mark = Path({str(tmp_path / "mark")!r})
            if not mark.exists():
                mark.touch()
                await stream.error("not now")
                return
            await stream.content(" and ")
            await self.services.call_llm("second", stream_to=stream)
        """,
    )
    async with store("requeue-plugin") as another:
        first, _, backend = await message_of(another, settings)
        (letter,) = await backend.queue.dead_letters()
        await backend.queue.requeue([letter.id])
        async with asyncio.timeout(LIMIT_S), open_worker(settings, await another()):
            chunks = [chunk async for chunk in Handle(backend, first.task_id)]
            second = await Handle(backend, first.task_id).result()
    assert first.error == "not now"
    assert ASKED == ["first/0", "second/0"]
    assert second.output == "so: answer to first and answer to second"
    assert seen(chunks) == [("CONTENT", second.output)]


async def test_without_a_journal_nothing_is_recorded(settings: Settings, tmp_path: Path) -> None:
    """Given a worker that keeps no journal, then a plugin works as well, and a failed attempt repeats what it did."""
    write_plugin(
        tmp_path / "plugins",
        """
        tries = 0

        async def handle_message(self, request, stream):
            self.tries += 1
            await self.services.call_llm("first", stream_to=stream)
            await self.services.kv.set("a", "b")
            if self.tries == 1:
                raise ValueError("again")
        """,
    )
    async with store("no journal") as another:
        result, chunks, _ = await message_of(another, replace(settings, journal=False))
    assert ASKED == ["first/0", "first/0"]
    assert result.output == "answer to first"
    assert seen(chunks) == [("CONTENT", "answer to first")]


async def test_a_message_that_is_handed_back_goes_on_elsewhere(settings: Settings, tmp_path: Path) -> None:
    """Given a worker that leaves in the middle of the second model call, then the next one asks for that call alone,
    what was shown of it is superseded, and the cancelled call is in the books."""
    write_plugin(
        tmp_path / "plugins",
        """
        async def handle_message(self, request, stream):
            await self.services.call_llm("first", stream_to=stream)
            await stream.content("; ")
            await self.services.call_llm("slow once", stream_to=stream)
        """,
    )
    async with store("handed back") as another:
        backend = await another()
        handle = await Fleet(backend).submit(Task(prompt="go", agent="bot"))
        chunks: list[Chunk] = []
        async with asyncio.timeout(LIMIT_S):
            async with open_worker(settings, await another()):
                async for chunk in handle:
                    chunks.append(chunk)
                    if chunk.content == "half an ":
                        break
            async with open_worker(settings, await another()):
                chunks += [chunk async for chunk in handle.chunks(after_seq=chunks[-1].seq)]
                result = await handle.result()
        records = await UsageReport(backend.state).recent()
    assert ASKED == ["first/0", "slow once/0", "slow once/0"]
    assert result.output == "answer to first; answer to slow once"
    assert seen(chunks) == [("CONTENT", result.output)]
    assert sorted(record.outcome.value for record in records) == ["cancelled", "completed", "completed"]
