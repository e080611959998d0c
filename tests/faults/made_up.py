"""Evidence of a run that never was: one task, in which everything went well, to be broken in one place by a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from queue_backends import Chunk
from tests.faults.brokers.redis_keys import STRUCTURE
from tests.faults.diaries import Call, CallEnd, CallStart, Effect
from tests.faults.evidence import Evidence, Letter, Told
from tests.faults.mixture import Errand
from tests.faults.plans import Plan, ToolUse, Turn, call_id, done_text, text_of
from tests.faults.submissions import Submission, View

QUEUE = "q"
TASK = "1700000000000-0"
KEY = "k1"
PLAN = Plan(KEY, (Turn(3, tools=(ToolUse("pay", 0.1),)), Turn(2)))
START = 1_700_000_000.0
WORKER = "w0.1"
MODEL = "openai/fake-1"


class Scene(Struct, kw_only=True):
    """The pieces of the evidence, open to change."""

    submission: Submission
    results: dict[str, dict[str, Any]]
    streams: dict[str, list[dict[str, Any]]]
    ledger: dict[str, dict[str, Any]]
    counters: dict[str, dict[str, int]]
    lifetimes: dict[str, float | None]
    calls: list[Call]
    effects: list[Effect]
    views: dict[str, View]

    def evidence(self, *, letters: Sequence[Letter] = (), **others: Any) -> Evidence:
        """The pieces together, and further ones by name."""
        return Evidence(
            queue=QUEUE,
            lease_s=2.0,
            submissions=[self.submission],
            told=Told(
                results=self.results,
                streams=self.streams,
                ledger=self.ledger,
                counters=self.counters,
                letters=letters,
            ),
            lifetimes=self.lifetimes,
            structure=STRUCTURE,
            calls=self.calls,
            effects=self.effects,
            views=self.views,
            announced={TASK: 1},
            **others,
        )


def all_is_well() -> Scene:
    """A task of two turns with one tool call: two model calls, one effect, one result, all of it stored."""
    chunks = stream()
    return Scene(
        submission=Submission(errand=Errand(plan=PLAN), ids=[TASK]),
        results={TASK: {"result": text_of(PLAN, 1, 2), "input_tokens": 2000, "output_tokens": 3}},
        streams={TASK: chunks},
        ledger={f"{TASK}:{turn}:0": record(turn, turn + 1) for turn in (0, 1)},
        counters=counters(),
        lifetimes={QUEUE: None, f"{QUEUE}-results": None, f"{QUEUE}:chunks:{TASK}": 3600.0},
        calls=[call(1, 0), call(2, 1)],
        effects=[Effect(at=START + 0.5, tool="pay", key=KEY, step="0.0")],
        views={TASK: View(chunks=[msgspec.convert(chunk, Chunk) for chunk in chunks], ended=True)},
    )


def call(no: int, turn: int, *, ending: str = "complete", at: float = START, worker: str = WORKER) -> Call:
    """A model call that took a tenth of a second; `at` is given for turn 0."""
    start = CallStart(at=at + turn, no=no, key=KEY, turn=turn, worker=worker, lineage=(1,)[:turn])
    return Call(start=start, end=CallEnd(at=at + turn + 0.1, no=no, ending=ending, begun=True))


def record(turn: int, no: int, *, attempt: int = 0, outcome: str = "completed") -> dict[str, Any]:
    """A usage record of a call."""
    return {
        "id": f"{TASK}:{turn}:{attempt}",
        "task_id": TASK,
        "provider": "openai",
        "model": "fake-1",
        "usage": {"input_tokens": 1000, "output_tokens": no} if outcome == "completed" else {},
        "outcome": outcome,
        "started_at": START + turn,
    }


def counters() -> dict[str, dict[str, int]]:
    """Totals of the two calls."""
    totals = {"calls": 2, "input_tokens": 2000, "output_tokens": 3, "unpriced_calls": 2}
    names = ("usage:day:2023-11-14", f"usage:model:{MODEL}")
    return {**{name: dict(totals) for name in names}, "usage:index": dict.fromkeys(names, 2)}


def stream() -> list[dict[str, Any]]:
    """The chunks of the task."""
    tool = {"id": call_id(1, 0), "name": "pay"}
    return numbered(
        {"type": "CONTENT", "content": text_of(PLAN, 0, 1)[:7]},
        {"type": "CONTENT", "content": text_of(PLAN, 0, 1)[7:]},
        {"type": "TOOL_CALL", "content": "pay", "metadata": tool},
        {"type": "TOOL_RESULT", "content": done_text(KEY, "0.0"), "metadata": tool},
        {"type": "CONTENT", "content": text_of(PLAN, 1, 2), "turn": 1},
        {"type": "DONE", "turn": 1, "is_final": True},
    )


def numbered(*chunks: dict[str, Any]) -> list[dict[str, Any]]:
    """Chunks with their numbers."""
    return [{**chunk, "task_id": TASK, "seq": seq} for seq, chunk in enumerate(chunks)]
