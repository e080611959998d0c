"""What travels: the values that engines, workers and consumers exchange.

Every Struct here is frozen and is JSON on the wire. New fields must have a default and unknown fields are skipped, so
that processes of different versions can share a queue. `None` means "not known"; zero means zero.
"""

from __future__ import annotations

import enum
import functools
import operator
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct, field

from queue_backends.errors import ChunkTooLarge, InvalidTask

JsonObject: TypeAlias = dict[str, Any]


class Priority(enum.StrEnum):
    """Order of delivery among tasks that are ready: all HIGH ones first, LOW ones when nothing else waits."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class ChunkType(enum.StrEnum):
    """What a chunk's `content` is. DONE and ERROR are final: exactly one of them ends every task."""

    CONTENT = "CONTENT"
    """A piece of the answer's text."""
    THINKING = "THINKING"
    """A piece of the model's visible reasoning."""
    TOOL_CALL = "TOOL_CALL"
    """A tool is about to be called; `content` is its name, `metadata` has `id`, `name` and `arguments`, and a true
    `is_client` for a tool of the client's, which no TOOL_RESULT follows."""
    TOOL_RESULT = "TOOL_RESULT"
    """A tool has answered; `content` is its output, `metadata` has `id`, `name` and `is_error`."""
    ERROR = "ERROR"
    """The task failed for good; `content` is the reason, `metadata.error_type` its class, if that is known. Final."""
    DONE = "DONE"
    """The task succeeded; `metadata` has the total usage, the stop reason and, if the run ended with them, the client's
    `tool_calls`. Final."""


class TokenUsage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of one model call, or the sum over several. A `None` was not reported by the provider.

    `input_tokens` counts all of the input, cached parts included; `output_tokens` counts all of the output, reasoning
    included. The other three are parts of these two, never additions to them.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def total_tokens(self) -> int:
        """Input plus output; what is not known counts as nothing."""
        return (self.input_tokens or 0) + (self.output_tokens or 0)

    def __add__(self, other: TokenUsage) -> TokenUsage:
        if self == _NO_USAGE:  # the first of a sum, which is most often the only one
            return other
        return TokenUsage(
            input_tokens=_add(self.input_tokens, other.input_tokens),
            output_tokens=_add(self.output_tokens, other.output_tokens),
            cache_read_tokens=_add(self.cache_read_tokens, other.cache_read_tokens),
            cache_write_tokens=_add(self.cache_write_tokens, other.cache_write_tokens),
            reasoning_tokens=_add(self.reasoning_tokens, other.reasoning_tokens),
        )


_NO_USAGE = TokenUsage()


def _add(left: int | None, right: int | None) -> int | None:
    if left is None:
        return right
    return left if right is None else left + right


class Task(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One unit of work for an agent.

    `id` is empty until a queue accepted the task; it stays the same over all retries. Times are Unix seconds, except
    `enqueued_at`, which is RFC 3339 text in UTC as on ark's wire.
    """

    prompt: str
    id: str = ""
    agent: str = ""
    """Name of the agent that shall run it; empty means the worker's own default agent."""
    history: tuple[JsonObject, ...] = ()
    """Earlier messages of the conversation, oldest first, in the form of `providers.Message`."""
    meta: dict[str, str] = {}
    """Free text fields of the engine's; carried along, returned on every redelivery."""
    attempt: int = 0
    """How often the task was already tried and failed, crashes of its worker included."""
    priority: Priority = Priority.NORMAL
    deadline: float | None = None
    """After this moment the task is not started any more, and a running one is ended. Unix seconds."""
    enqueued_at: str = ""
    traceparent: str = ""
    tracestate: str = ""
    baggage: str = ""
    idempotency_key: str = ""
    """Submitting the same key again gives the same task id and adds no second task."""
    tenant: str = ""
    session_id: str = ""
    conversation_id: str = ""
    """The conversation whose earlier messages the run begins with, and which it adds to. The workers keep it; `history`
    comes after what they have. Empty: none."""
    overrides: JsonObject = {}
    """Fields of the agent's configuration that differ for this task, such as `{"model": "..."}`."""
    stream_key: str = ""
    """ark: a Redis list that receives the answer's text, piece by piece, and ends in `__EOF__`."""


class Chunk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One piece of a task's stream.

    `seq` counts 0, 1, 2, … over the whole task, whichever worker or attempt wrote it. When a turn starts over, its new
    chunks carry a higher `attempt`, and a consumer drops what it showed of that turn before.
    """

    task_id: str
    seq: int
    type: ChunkType
    content: str = ""
    turn: int = 0
    attempt: int = 0
    metadata: JsonObject = {}
    is_final: bool = False


MAX_CHUNK_CHARS = 4 * 1024 * 1024
"""Of a chunk's JSON. Nothing longer is written: it would hold up every other task, and every consumer of its own."""


def check_chunk_size(task_id: str, seq: int, json_chars: int) -> None:
    """Raise `ChunkTooLarge` for a chunk that no backend takes."""
    if json_chars > MAX_CHUNK_CHARS:
        raise ChunkTooLarge(
            f"chunk {seq} of task {task_id} has {json_chars} characters of JSON, at most {MAX_CHUNK_CHARS} are "
            "allowed: split its text, or shorten its metadata"
        )


class ChunkDraft(Struct, frozen=True, kw_only=True):
    """A chunk as its author has it: the task and `seq` are given by the backend when it is published."""

    type: ChunkType
    content: str = ""
    turn: int = 0
    attempt: int = 0
    metadata: JsonObject = {}
    is_final: bool = False


class CallOutcome(enum.StrEnum):
    """How a model call ended, as its usage record says it."""

    COMPLETED = "completed"
    FAILED = "failed"
    CUT = "cut"
    """The stream broke after it had begun; what had been produced may be billed."""
    CANCELLED = "cancelled"
    LOST = "lost"
    """Its worker died or lost the task: whether it was sent, and what it cost, is not known."""


class UsageRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one model call used. There is one per call that was sent, cut and cancelled ones included.

    `id` is `{task_id}:{turn}:{attempt}`: writing the same id twice counts once. `cost_usd` is None for a model without
    a known price. `estimated` says that the token counts are ours because the provider gave none.
    """

    id: str
    task_id: str
    provider: str
    model: str
    usage: TokenUsage
    outcome: CallOutcome
    started_at: float
    """Unix seconds."""
    duration_ms: int
    time_to_first_chunk_ms: int | None = None
    cost_usd: float | None = None
    estimated: bool = False
    agent: str = ""
    tenant: str = ""
    session_id: str = ""
    team: str = ""
    role: str = ""
    charged_to: tuple[str, ...] = ()
    """The accounts of budgets that it counts in: they are made again from the records if they are lost."""
    charged: tuple[int, int] | None = None
    """Tokens and millionths of a US dollar that it counts as there, where `usage` does not say it."""


class TaskResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a task ended. `error` is empty exactly when it succeeded."""

    task_id: str
    output: str = ""
    error: str = ""
    usage: TokenUsage = TokenUsage()
    cost_usd: float | None = None
    finished_at: float = 0.0
    """Unix seconds."""
    artifacts: dict[str, str] = {}
    structured: Any = None
    """The parsed output, where the agent declares an output schema."""
    stop_reason: str = ""
    """Why the last turn ended: `end_turn`, `stop_sequence`, `max_tokens` for an answer that was cut there, or
    `tool_use` for a run that ended with calls for its client."""
    tool_calls: tuple[JsonObject, ...] = ()
    """Those calls, each with `id`, `name` and `arguments` (JSON text): of tools that the task's client runs itself."""

    @property
    def ok(self) -> bool:
        """Whether the task succeeded."""
        return not self.error


class DeadLetter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task that was given up, or an entry that could not be read.

    `id` addresses the letter itself (for requeue and purge); `task_id` is the task's.
    """

    id: str
    task_id: str
    error: str
    prompt: str = ""
    attempt: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    """The entry as it stood in the queue, so that it can be brought back."""
    dead_at: float = 0.0


RUN_CANCELLED = "run cancelled"
"""The error of a task that was cancelled, as ark's operator writes and reads it."""

RESERVED_META = frozenset(name for name in Task.__struct_fields__ if name not in {"id", "meta"}) | {
    "next_attempt",
    "original_task_id",
    "spent",
}
"""Names that a task's `meta` may not use, because they are fields of the entry itself."""


def now_rfc3339() -> str:
    """The present moment as ark writes it: UTC with whole seconds, `2026-04-04T17:48:15Z`."""
    return _rfc3339(int(time.time()))


@functools.lru_cache(maxsize=1)
def _rfc3339(second: int) -> str:
    """Kept while it is true: even so written, which takes a third of datetime's own way, a date costs more than all
    else in an entry (measured)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def check_task(task: Task, *, max_prompt_bytes: int = 8 * 1024 * 1024, is_delivered: bool = False) -> Task:
    """Refuse, at the edge, what no worker could run. The texts of a delivered task came as UTF-8.

    Raises `InvalidTask` with the field, its value and what is allowed.
    """
    if not task.prompt.strip() and not task.history:
        raise InvalidTask("prompt is empty: give the task some text, or a history to continue")
    size = len(task.prompt) if task.prompt.isascii() else _utf8_size("prompt", task.prompt)
    if size > max_prompt_bytes:
        raise InvalidTask(f"prompt has {size} bytes, at most {max_prompt_bytes} are allowed: shorten it or pass a link")
    if not is_delivered:
        texts = _texts_of(task)
        if texts != _NO_TEXTS and not "".join(texts).isascii():
            for name in _TEXT_FIELDS:
                _utf8_size(name, getattr(task, name))
        if task.enqueued_at:
            _utf8_size("enqueued_at", task.enqueued_at)
    if task.meta:
        _check_meta(task.meta)
    if task.deadline is not None and not abs(task.deadline) < LAST_MOMENT:
        raise InvalidTask(f"deadline is {task.deadline}: it must be a moment in Unix seconds, or absent")
    if task.history:
        _check_json("history", task.history)
    if task.overrides:
        _check_json("overrides", task.overrides)
    return task


def _check_meta(meta: Mapping[str, str]) -> None:
    if len(meta) > MOST_META:
        raise InvalidTask(f"meta has {len(meta)} keys, at most {MOST_META} are allowed: put some into the prompt")
    for key, value in meta.items():
        _utf8_size("meta", key)
        if key in RESERVED_META:
            raise InvalidTask(f"meta key {key!r} is a field of the task itself: set Task.{key}, or rename the key")
        if not isinstance(value, str):
            raise InvalidTask(f"meta[{key!r}] is {type(value).__name__}: meta values are text, encode others as JSON")
        _utf8_size(f"meta[{key!r}]", value)


def check_run_at(run_at: float | None) -> None:
    """Raise `InvalidTask` for what is no moment at which a task could become ready."""
    if run_at is not None and not abs(run_at) < LAST_MOMENT:
        raise InvalidTask(f"run_at is {run_at}: it must be a moment in Unix seconds")


def _utf8_size(name: str, text: str) -> int:
    """How many bytes a text has on the wire. Raises `InvalidTask` for one that cannot be sent."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidTask(f"{name} is no valid Unicode text: {error.reason} at position {error.start}") from error


def _check_json(name: str, value: object) -> None:
    try:
        encode_json(value)
    except (TypeError, ValueError, RecursionError) as error:  # a lone surrogate is a ValueError
        raise InvalidTask(f"{name} cannot be written as JSON: {_shortened(error)}") from error


MOST_VALUE_CHARS = 200
"""A message about a wrong value shows this much of it: the value may be megabytes long."""


def _shortened(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= MOST_VALUE_CHARS else f"{text[:MOST_VALUE_CHARS]}…"


LAST_MOMENT = 253_402_300_800.0
"""The end of the year 9999, in Unix seconds."""
MOST_META = 900
MOST_FIELDS = 1000
"""A queue entry has no more fields: brokers' scripts pass them on as arguments, whose number is limited."""
MOST_COUNT = 1_000_000_000
"""No count in a queue entry is higher: what counts attempts must not overflow anywhere."""

encode_json: Callable[[object], bytes] = msgspec.json.Encoder().encode
"""The wire's one JSON encoding."""


def convert_task(fields: Mapping[str, Any]) -> Task:
    """Build a task from loose fields, such as a JSON object of a request.

    Raises `InvalidTask` naming the field that does not fit.
    """
    try:
        return check_task(msgspec.convert(fields, Task))
    except msgspec.ValidationError as error:
        raise InvalidTask(f"task does not fit: {error}") from error


def task_from_entry(task_id: str, fields: Mapping[str, str], *, attempt: int) -> Task:
    """Read a queue entry whose values are all text, as it stands on ark's wire.

    Unknown fields become `meta`. Raises `InvalidTask` with the reason if the entry cannot be a task.
    """
    if len(fields) > MOST_FIELDS:
        raise InvalidTask(
            f"the entry has {len(fields)} fields, at most {MOST_FIELDS} are allowed: put some into the prompt"
        )
    known: JsonObject = {"id": task_id, "attempt": attempt}
    meta: dict[str, str] = {}
    for name, value in fields.items():
        reader = _ENTRY_FIELDS.get(name)
        if reader is str:
            known[name] = value
            continue
        if reader is None:
            if name not in _ENTRY_INTERNAL:
                meta[name] = value
            continue
        try:
            known[name] = reader(value)
        except (ValueError, RecursionError) as error:  # msgspec.DecodeError is a ValueError
            allowed = _ALLOWED[name]
            raise InvalidTask(f"field {name!r} cannot be read: {_shortened(error)}: it must be {allowed}") from error
    if "prompt" not in known:
        raise InvalidTask("there is no field 'prompt': add one with the text for the agent")
    known["meta"] = meta
    return Task(**known)


def entry_count(fields: Mapping[str, str], name: str) -> int:
    """A field of a queue entry that counts something; 0 if it is absent or empty.

    Raises `InvalidTask` unless it is a whole number of at most `MOST_COUNT`.
    """
    text = fields.get(name, "")
    if not text:
        return 0
    if len(text) > len(str(MOST_COUNT)) or not (text.isascii() and text.isdigit()) or int(text) > MOST_COUNT:
        shown = text[:MOST_VALUE_CHARS]
        raise InvalidTask(f"field {name!r} cannot be read: {shown!r}: it must be a whole number from 0 to {MOST_COUNT}")
    return int(text)


def task_to_entry(task: Task, enqueued_at: str) -> dict[str, str]:
    """The queue entry of a task: text fields only, defaults left out, `meta` spread flat."""
    others = other_fields(task)
    fields = {"prompt": task.prompt, "enqueued_at": task.enqueued_at or enqueued_at}
    return {**fields, **dict(zip(others[::2], others[1::2], strict=True))}


def other_fields(task: Task) -> list[str]:
    """What the queue entry of a task has beside `prompt` and `enqueued_at`: names and values in turn."""
    fields: list[str] = []
    texts = _texts_of(task)
    if texts != _NO_TEXTS:
        for name, text in zip(_TEXT_FIELDS, texts, strict=True):
            if text:
                fields += (name, text)
    if task.attempt:
        fields += ("attempt", str(task.attempt))
    if task.priority is not Priority.NORMAL:
        fields += ("priority", task.priority.value)
    if task.deadline is not None:
        fields += ("deadline", repr(task.deadline))
    if task.history:
        fields += ("history", encode_json(task.history).decode())
    if task.overrides:
        fields += ("overrides", encode_json(task.overrides).decode())
    for item in task.meta.items():
        fields += item
    return fields


def _history(text: str) -> tuple[JsonObject, ...]:
    return _history_decoder.decode(text)


def _moment(text: str) -> float:
    moment = float(text)
    if not abs(moment) < LAST_MOMENT:
        raise ValueError(f"{text!r} is no moment")
    return moment


_history_decoder = msgspec.json.Decoder(tuple[JsonObject, ...])
_object_decoder = msgspec.json.Decoder(JsonObject)
_TEXT_FIELDS: Sequence[str] = (
    "agent",
    "traceparent",
    "tracestate",
    "baggage",
    "idempotency_key",
    "tenant",
    "session_id",
    "conversation_id",
    "stream_key",
)
_texts_of = operator.attrgetter(*_TEXT_FIELDS)
_NO_TEXTS = ("",) * len(_TEXT_FIELDS)
_ENTRY_INTERNAL = frozenset({"attempt", "next_attempt", "original_task_id", "spent"})
_ENTRY_FIELDS: Mapping[str, Any] = {
    "prompt": str,
    "enqueued_at": sys.intern,  # one text for all tasks of the same second, instead of 70 bytes for each
    **dict.fromkeys(_TEXT_FIELDS, str),
    "priority": Priority,
    "deadline": _moment,
    "history": _history,
    "overrides": _object_decoder.decode,
}
_ALLOWED: Mapping[str, str] = {
    "priority": " or ".join(repr(priority.value) for priority in Priority),
    "deadline": "a moment in Unix seconds, such as 1775325495.5",
    "history": "a JSON array of objects, the earlier messages",
    "overrides": 'a JSON object, such as {"model": "..."}',
}
"""What a field that has a form must be; the others may be any text."""
