"""The durable record of a run: what it has paid for and done, so that no crash repeats it.

Each task has a log of its own, `journal/<task id>`. A finished model turn, the start of a tool call and its outcome are
stored there before the next step begins, in one fenced step with the chunks that show them. Whoever gets the task next
reads the log and goes on from there. An entry that stands already is never written twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from providers import ToolOutcome
from providers.messages import TurnEnd
from providers.turn_routing import Switch
from queue_backends import LogRecord, StateStore, UsageRecord
from queue_backends.messages import JsonObject, encode_json

MOST_ENTRIES = 100_000
STEP_TURNS = 1000
"""Step `n` of an agent plugin has the turns from `n * STEP_TURNS` on."""
SIDE_TURNS = 1_000_000_000
"""Model call `n` beside a run's own has the turn `SIDE_TURNS + n`."""

log = structlog.get_logger(__name__)


class _Entry(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """What all entries have."""

    worker: str = ""
    """Who wrote it."""


class ModelCall(_Entry, frozen=True, kw_only=True, omit_defaults=True, tag="model_call"):
    """A model call has ended, one way or another."""

    turn: int
    attempt: int
    usage: UsageRecord
    end: TurnEnd | None = None
    """The answer of a completed call that the run went on from; the last one's is the task's result."""
    error: str = ""
    target: str = ""
    """Which target of a route it went to."""


class Switched(_Entry, frozen=True, kw_only=True, omit_defaults=True, tag="switched"):
    """A model call is about to go elsewhere than its route would have it by itself."""

    turn: int
    attempt: int
    switch: Switch


class Recalled(_Entry, frozen=True, kw_only=True, omit_defaults=True, tag="recalled"):
    """What the task's role remembered when it began: whoever goes on with the task begins with the same."""

    history: tuple[JsonObject, ...] = ()
    preface: str = ""


class ToolStarted(_Entry, frozen=True, kw_only=True, omit_defaults=True, tag="tool_started"):
    """A tool is about to be called: from now on it may have taken effect."""

    key: str
    """Which call of the run."""
    turn: int
    call_id: str
    name: str
    arguments: str = ""
    """Only where the model's message is not known, which is with providers that run whole tasks."""


class ToolWaits(_Entry, frozen=True, kw_only=True, omit_defaults=True, tag="tool_waits"):
    """A tool call has parked its run for the first time: it is made again when the run goes on."""

    key: str
    turn: int
    call_id: str
    name: str
    reason: str = ""
    """What it waits for."""


class ToolFinished(_Entry, frozen=True, kw_only=True, omit_defaults=True, tag="tool_finished"):
    """A tool has answered."""

    key: str
    turn: int
    outcome: ToolOutcome
    duration_ms: int = 0
    is_raw: bool = False
    """As the tool itself answered, before its run's loop policy does what takes long. Of two entries of a call the last
    one counts."""


class TakenOver(_Entry, frozen=True, kw_only=True, omit_defaults=True, tag="taken_over"):
    """A worker goes on with a task that another delivery had begun."""

    attempt: int
    """From here on it numbers its model calls."""
    crashes: int = 0
    """How many workers died over the task since it last waited."""


class AttemptEnded(_Entry, frozen=True, kw_only=True, omit_defaults=True, tag="attempt_ended"):
    """An attempt did not lead to an answer."""

    attempt: int
    """As its delivery began to number its model calls."""
    how: str
    """`retry`, `postponed`, `parked`, `released`, `dead` or `cancelled`."""
    error: str = ""
    retry_in_s: float | None = None
    since: float | None = None
    """If it was postponed: since when the task has waited for its next model call. Unix seconds."""


class SideCall(_Entry, frozen=True, kw_only=True, omit_defaults=True, tag="side_call"):
    """A model call beside the run's own is about to be made: its loop policy wants something summed up, or advice. What
    became of it, and its answer, stands in the `ModelCall` of its turn."""

    number: int
    """From 0."""
    what: str
    """`compression`, `finding` or `advice`."""
    attempt: int
    """Of the `ModelCall`, unless it is started over."""
    digest: str
    """Of what is asked."""
    call_id: str = ""
    """Of the tool call that it is made for."""
    about: str = ""
    """Of advice: the advisor's name."""
    provider: str = ""
    model: str = ""


class Sandboxed(_Entry, frozen=True, kw_only=True, omit_defaults=True, tag="sandboxed"):
    """The model was given a digest instead of a tool's long output."""

    number: int
    """Of `result-<number>`, which the model knows it by."""
    call_id: str
    """What it is stored under."""
    size_bytes: int


class PluginStep(_Entry, frozen=True, kw_only=True, omit_defaults=True, tag="plugin_step"):
    """An agent plugin is about to do something: a model call, a tool call, a query."""

    number: int
    """From 1; its model calls have the turns from `1000 * number` on."""
    name: str
    """How the plugin's code is recognised that asks for it: `#2` is the third step without a key, `=plan` has one."""
    what: str
    """`model`, `tool`, `query` or `kv`."""
    digest: str
    """Of what was asked for."""
    provider: str = ""
    model: str = ""


class PluginAnswer(_Entry, frozen=True, kw_only=True, omit_defaults=True, tag="plugin_answer"):
    """A step of an agent plugin has ended. What models and tools answered stands in entries of their own."""

    number: int
    attempt: int
    value: Any = None
    error: str = ""
    error_type: str = ""


class PluginShown(_Entry, frozen=True, kw_only=True, omit_defaults=True, tag="plugin_shown"):
    """A section of an agent plugin's stream is out, whole."""

    section: int
    """Its chunks' `turn`."""
    label: str
    """What it is, or a digest of it."""


Entry = (
    ModelCall
    | Switched
    | Recalled
    | ToolStarted
    | ToolWaits
    | ToolFinished
    | TakenOver
    | AttemptEnded
    | SideCall
    | Sandboxed
    | PluginStep
    | PluginAnswer
    | PluginShown
)
_decode = msgspec.json.Decoder(Entry).decode


class Moment(Struct, frozen=True):
    """An entry and when it was stored."""

    at: float
    """Unix seconds, by the store's clock."""
    entry: Entry


class Journal:
    """How entries are kept: for `unfinished_s` after the last one, and from a run's end on for `finished_s`.

    One that is off keeps nothing: then a crash repeats what it repeats.
    """

    __slots__ = ("_finished_s", "_is_on", "_unfinished_s")

    def __init__(self, *, unfinished_s: float, finished_s: float, is_on: bool = True) -> None:
        self._unfinished_s = unfinished_s
        self._finished_s = finished_s
        self._is_on = is_on

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._is_on

    def records(self, task_id: str, entry: Entry, *, is_last: bool = False) -> tuple[LogRecord, ...]:
        """What to store of an entry; `is_last` says that the task ends with it."""
        if not self._is_on:
            return ()
        keep_s = self._finished_s if is_last else self._unfinished_s
        value = encode_json(entry)
        return (LogRecord(log=log_name(task_id), id=_id(entry), value=value, keep_s=keep_s, is_last=is_last),)


async def read_journal(state: StateStore, task_id: str) -> list[Moment]:
    """All entries of a task, oldest first. One that cannot be read ends the story: a run then goes on from the last
    entry before it. Raises `BackendUnavailable`."""
    moments = []
    for kept in await state.read_log(log_name(task_id), limit=MOST_ENTRIES):
        try:
            moments.append(Moment(kept.at, _decode(kept.value)))
        except msgspec.MsgspecError as error:
            log.warning("journal entry cannot be read", task=task_id, entry=kept.id, error=str(error))
            break
    return moments


def log_name(task_id: str) -> str:
    """The state log that holds a task's journal."""
    return f"journal/{task_id}"


def _id(entry: Entry) -> str:
    match entry:
        case ModelCall(turn=turn, attempt=attempt):
            return f"call/{turn}/{attempt}"
        case Switched(turn=turn, attempt=attempt):
            return f"switch/{turn}/{attempt}"
        case Recalled():
            return "recalled"
        case ToolStarted(key=key, worker=worker):
            return f"start/{key}/{worker}"
        case ToolWaits(key=key):
            return f"waits/{key}"
        case ToolFinished(key=key, is_raw=is_raw):
            return f"raw/{key}" if is_raw else f"end/{key}"
        case TakenOver(attempt=attempt):
            return f"taken/{attempt}"
        case AttemptEnded(attempt=attempt):
            return f"ended/{attempt}"
        case SideCall(number=number):
            return f"side/{number}"
        case Sandboxed(number=number):
            return f"sandboxed/{number}"
        case PluginStep(number=number):
            return f"step/{number}"
        case PluginAnswer(number=number, attempt=attempt):
            return f"answer/{number}/{attempt}"
        case PluginShown(section=section):
            return f"shown/{section}"


def entries_of(moments: Sequence[Moment]) -> list[Entry]:
    """The entries alone."""
    return [moment.entry for moment in moments]
