"""Watching a task: order, restarted turns, tool lines, errors, resuming."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence

import pytest

from queue_backends import Ack, Backend, Chunk, ChunkDraft, ChunkType, Dead, TaskResult, TokenUsage
from tests.cli.cli_harness import DONE, Shoal, WithBackend, content, publish, pull_one
from worker.cli import follow as following
from worker.cli.screen import Screen
from worker.cli.turns import Turns, Verdict
from worker.cli.views import PlainView, TerminalView, rows_below, tool_line
from worker.client import Fleet

CALL = ChunkDraft(
    type=ChunkType.TOOL_CALL, content="add", metadata={"id": "1", "name": "add", "arguments": '{"a": 1, "b": "x"}'}
)
RESULT = ChunkDraft(type=ChunkType.TOOL_RESULT, content="42\nand more", metadata={"id": "1", "name": "add"})
USAGE = TokenUsage(input_tokens=1200, output_tokens=34)


def work(shoal: Shoal, with_backend: WithBackend, chunks: Sequence[ChunkDraft], *, error: str = "") -> str:
    """Submit a task and end it with these chunks; returns its id."""
    task_id = shoal("submit", "x").out.strip()

    async def run(backend: Backend) -> None:
        delivery = await pull_one(backend)
        await publish(backend, delivery, chunks)
        final = ChunkDraft(type=ChunkType.ERROR, content=error, is_final=True) if error else DONE
        result = TaskResult(task_id=task_id, output="", error=error, usage=USAGE, cost_usd=0.0123)
        kind = Dead if error else Ack
        assert not await backend.commit([kind(delivery=delivery, result=result, chunks=(final,))])

    with_backend(run)
    return task_id


def test_a_pipe_gets_the_answer_alone(shoal: Shoal, with_backend: WithBackend) -> None:
    """Text on stdout; tool calls, tokens and cost on stderr; reasoning nowhere."""
    thought = ChunkDraft(type=ChunkType.THINKING, content="hmm")
    task_id = work(shoal, with_backend, [thought, CALL, RESULT, content("Hello, ", turn=1), content("world", turn=1)])
    outcome = shoal("tail", task_id)
    assert (outcome.code, outcome.out) == (0, "Hello, world\n")
    assert outcome.err.splitlines() == [
        '→ add(a=1, b="x")',
        "← 42 (+1 lines)",
        f"1 234 tokens (1 200 in, 34 out) · $0.0123 · task {task_id}",
    ]


def test_a_failed_task_is_exit_code_1_with_its_reason(shoal: Shoal, with_backend: WithBackend) -> None:
    """What was said before the failure stays."""
    outcome = shoal("tail", work(shoal, with_backend, [content("Let me")], error="permanent failure: no"))
    assert (outcome.code, outcome.out) == (1, "Let me\n")
    assert "error: permanent failure: no" in outcome.err


def test_a_restarted_turn_is_said_in_a_pipe(shoal: Shoal, with_backend: WithBackend) -> None:
    """What is in the pipe cannot be taken back; the reader is told where the turn begins again."""
    chunks = [content("Hel"), content("lo"), content("Hello ", attempt=1), content("you", attempt=1)]
    outcome = shoal("tail", work(shoal, with_backend, chunks))
    assert outcome.out == "Hello\n[turn restarted]\nHello you\n"


def test_watching_goes_on_after_a_seq(shoal: Shoal, with_backend: WithBackend) -> None:
    """--after leaves out what was shown before."""
    task_id = work(shoal, with_backend, [content("one "), content("two "), content("three")])
    assert shoal("tail", task_id, "--after", "1").out == "three\n"


def test_json_lines_are_all_chunks_and_the_result(shoal: Shoal, with_backend: WithBackend) -> None:
    """Superseded chunks included: a program applies the rule itself."""
    task_id = work(shoal, with_backend, [content("a"), content("b", attempt=1)])
    lines = [json.loads(line) for line in shoal("tail", task_id, "--json").out.splitlines()]
    assert [line.get("seq") for line in lines] == [0, 1, 2, None]
    assert lines[1]["attempt"] == 1
    assert lines[2]["is_final"] is True
    assert lines[3]["result"]["task_id"] == task_id


def test_submit_and_follow_in_one_go(shoal: Shoal, with_backend: WithBackend) -> None:
    """An idempotency key leads to the task that has already run."""
    first = shoal("submit", "x", "--idempotency-key", "k").out.strip()

    async def answer(backend: Backend) -> None:
        delivery = await pull_one(backend)
        result = TaskResult(task_id=first, output="hi")
        await backend.commit([Ack(delivery=delivery, result=result, chunks=(content("hi"), DONE))])

    with_backend(answer)
    outcome = shoal("submit", "x", "--idempotency-key", "k", "--follow")
    assert (outcome.code, outcome.out) == (0, "hi\n")


def test_a_reader_who_waits_is_told_why(
    shoal: Shoal, with_backend: WithBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any chunk for a while, the state of the queue is explained."""
    monkeypatch.setattr(following, "QUIET_S", 0.01)
    task_id = shoal("submit", "x").out.strip()
    shoal("pause")
    err = io.StringIO()

    async def watch(backend: Backend) -> None:
        fleet = Fleet(backend)
        screen = Screen(out=io.StringIO(), err=err, environ={})
        watching = asyncio.create_task(following.follow(fleet, fleet.task(task_id), screen))
        async with asyncio.timeout(30):
            while not err.getvalue():
                await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    with_backend(watch)
    assert err.getvalue().splitlines() == [
        "waiting: the queue is paused (shoal resume)",
        f"stopped watching; the task goes on. To continue: shoal tail {task_id}",
    ]


def chunk(seq: int, *, turn: int = 0, attempt: int = 0, is_final: bool = False) -> Chunk:
    """A chunk of which only its place matters."""
    kind = ChunkType.DONE if is_final else ChunkType.CONTENT
    return Chunk(task_id="t", seq=seq, type=kind, turn=turn, attempt=attempt, is_final=is_final)


def test_only_the_present_turn_is_ever_dropped() -> None:
    """A higher attempt restarts its turn once; leftovers of an older attempt are skipped; new turns are just shown."""
    turns = Turns()
    verdicts = [
        turns.judge(piece)
        for piece in (
            chunk(0),
            chunk(1),
            chunk(2, attempt=1),
            chunk(3, attempt=1),
            chunk(4),
            chunk(5, turn=1, attempt=1),
            chunk(6, turn=0, attempt=2),
            chunk(7, turn=1, attempt=2),
            chunk(8, is_final=True),
        )
    ]
    show, restart, skip = Verdict.SHOW, Verdict.RESTART, Verdict.SKIP
    assert verdicts == [show, show, restart, show, skip, show, skip, restart, show]


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal of 20 columns and 6 lines."""
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "6")
    return Screen(out=Terminal(), err=Terminal(), environ={"TERM": "xterm"})


def said(screen: Screen) -> str:
    """What was written."""
    assert isinstance(screen.out, Terminal)
    return screen.out.getvalue()


def piece(text: str, kind: ChunkType = ChunkType.CONTENT, *, turn: int = 0) -> Chunk:
    """A chunk with a text."""
    return Chunk(task_id="t", seq=0, type=kind, content=text, turn=turn)


def test_a_restarted_turn_is_wiped_off_a_terminal(screen: Screen) -> None:
    """The cursor goes up over all rows of the turn, wrapped ones included, and clears from there."""
    view = TerminalView(screen)
    view.chunk(piece("first turn\n"))
    view.chunk(piece("x" * 45, turn=1))
    view.restart()
    assert said(screen).endswith("\r\x1b[2A\x1b[J")


def test_a_turn_that_has_scrolled_away_is_not_wiped(screen: Screen) -> None:
    """What has left the screen cannot be reached; it is said instead."""
    view = TerminalView(screen)
    view.chunk(piece("line\n" * 9))
    view.restart()
    assert "[turn restarted]" in said(screen)
    assert "\x1b[J" not in said(screen)


def test_what_models_write_cannot_steer_the_terminal(screen: Screen) -> None:
    """Escape sequences in answers and tool results are left out as a whole."""
    view = TerminalView(screen)
    view.chunk(piece("a\x1b[2Jb\rc"))
    view.chunk(piece("\x1b]0;title\x07", ChunkType.TOOL_RESULT))
    assert "\x1b[2J" not in said(screen)
    assert "\x1b]0" not in said(screen)
    assert "abc" in said(screen)


def test_no_colour_means_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR and dumb terminals get plain text, terminal or not."""
    assert Screen(out=Terminal(), environ={"TERM": "xterm"}).fancy
    assert not Screen(out=Terminal(), environ={"TERM": "xterm", "NO_COLOR": "1"}).fancy
    assert not Screen(out=Terminal(), environ={"TERM": "dumb"}).fancy
    assert not Screen(out=io.StringIO(), environ={"TERM": "xterm"}).fancy


def test_thinking_is_left_out_of_a_pipe() -> None:
    """A pipe gets the answer alone."""
    out = io.StringIO()
    PlainView(Screen(out=out, err=io.StringIO(), environ={})).chunk(piece("hmm", ChunkType.THINKING))
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", 0),
        ("x" * 10, 0),
        ("x" * 11, 1),
        ("x" * 21, 2),
        ("x\n", 1),
        ("x" * 10 + "\n", 1),
        ("日本語日本", 0),
        ("x日本語日本", 1),
        ("\t\tx", 0),
        ("e\u0301" * 10, 0),
    ],
)
def test_rows_are_counted_as_a_terminal_of_ten_columns_does(text: str, rows: int) -> None:
    """Full lines break late, wide characters are never split, marks take no room."""
    assert rows_below(text, 10) == rows


def test_long_tool_lines_are_cut_to_the_width() -> None:
    """One tool call is one line, whatever its arguments."""
    call = Chunk(task_id="t", seq=0, type=ChunkType.TOOL_CALL, metadata={"name": "f", "arguments": {"a": "y" * 500}})
    result = Chunk(task_id="t", seq=0, type=ChunkType.TOOL_RESULT, content="z" * 500 + "\nmore\nlines")
    assert len(tool_line(call, 60)) == 60
    assert len(tool_line(result, 60)) == 60
    assert tool_line(result, 60).endswith("(+2 lines)")
