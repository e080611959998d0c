"""What a conversation is kept as: a log of its own in the `StateStore`.

`conversations/<tenant>/<id>` holds one record for each run that took part: what was asked and all that the run added,
written in the same step as the run's result. Records beside them say that an exchange was taken back, or stand for a
summary. Nothing in a log is ever changed; what it means is read out of it here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote

import msgspec
import structlog
from msgspec import Struct

from providers import Message, Role, ToolCall, ToolOutcome
from providers.messages import Part
from queue_backends import LogEntry, LogRecord, StateStore, TokenUsage
from queue_backends.messages import encode_json
from worker.recall import NO_OUTCOME

MOST_EXCHANGES = 1024
"""No more of a conversation is looked at when a run begins."""
_FIRST_PAGE = 32

log = structlog.get_logger(__name__)


class _Record(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """What all records have."""

    task_id: str


class Exchange(_Record, frozen=True, kw_only=True, omit_defaults=True, tag="exchange"):
    """What one run added: the question, the turns that it finished, and the answer as far as it came.

    A later record of the same task replaces this one: then the task was brought back and ran again.
    """

    asked: tuple[Message, ...]
    answered: tuple[Message, ...] = ()
    """Assistant's turns and outcomes of tools. The last turn of a run that was ended may be cut."""
    error: str = ""
    """Why there is no whole answer; empty: there is one."""
    error_type: str = ""
    """The error's class, where it is known."""
    agent: str = ""
    began_at: float = 0.0
    """Unix seconds."""
    ended_at: float = 0.0
    usage: TokenUsage | None = None
    """Of the whole task."""
    cost_usd: float | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """All of it, in order."""
        return (*self.asked, *self.answered)


class Dropped(_Record, frozen=True, kw_only=True, omit_defaults=True, tag="dropped"):
    """The exchange of this task was taken back: its question is asked again by another."""


class SummaryAsked(_Record, frozen=True, kw_only=True, omit_defaults=True, tag="summary_asked"):
    """The run of this task has asked for a summary of all that was said until the exchange of `up_to`, included."""

    key: str
    """Known to the fleet alone: the summarising task has it as its idempotency key."""
    up_to: str
    """Id of the task of that exchange."""
    at: float = 0.0
    """Unix seconds."""


class Summary(_Record, frozen=True, kw_only=True, omit_defaults=True, tag="summary"):
    """What a summarising task answered. It counts only if a `SummaryAsked` has its key."""

    key: str
    up_to: str
    text: str


Record = Exchange | Dropped | SummaryAsked | Summary
_decode = msgspec.json.Decoder(Record).decode


class Kept(Struct, frozen=True, kw_only=True):
    """A conversation as it stands in its log, or the newest part of it."""

    exchanges: tuple[Exchange, ...] = ()
    """Those that no summary covers, oldest first."""
    summary: Summary | None = None
    asked: SummaryAsked | None = None
    """The newest summary that was asked for and is not there yet."""
    is_whole: bool = True
    """False: there may be older exchanges than these that no summary covers."""


def log_name(tenant: str, conversation_id: str) -> str:
    """The log of a conversation. Each tenant has conversations of its own, whatever their ids."""
    return f"conversations/{quote(tenant, safe='')}/{quote(conversation_id, safe='')}"


def log_record(log_of: str, record: Record, *, keep_s: float, again: int = 0) -> LogRecord:
    """What to append; `again` numbers the records of a task that ran more than once."""
    match record:
        case Exchange():
            name = f"{record.task_id}/{again}"
        case Dropped():
            name = f"dropped/{record.task_id}"
        case SummaryAsked():
            name = f"asked/{record.task_id}"
        case Summary():
            name = f"summary/{record.task_id}"
    return LogRecord(log=log_of, id=name, value=encode_json(record), keep_s=keep_s)


def read_records(entries: Iterable[LogEntry]) -> list[Record]:
    """The records of log entries, in their order. One that cannot be read is left out and named in the log."""
    records: list[Record] = []
    for entry in entries:
        try:
            records.append(_decode(entry.value))
        except msgspec.MsgspecError as error:  # written by a newer version
            log.warning("a record of a conversation cannot be read", record=entry.id, error=str(error))
    return records


def exchanges_of(records: Sequence[Record]) -> list[Exchange]:
    """All exchanges that count, oldest first: of each task the latest, those taken back left out."""
    return [exchange for _, exchange in _numbered(records)]


def _numbered(records: Sequence[Record]) -> list[tuple[int, Exchange]]:
    """The same, each with its place among the records."""
    latest = {record.task_id: number for number, record in enumerate(records) if isinstance(record, Exchange)}
    dropped = {record.task_id for record in records if isinstance(record, Dropped)}
    return [
        (number, record)
        for number, record in enumerate(records)
        if isinstance(record, Exchange) and latest[record.task_id] == number and record.task_id not in dropped
    ]


def kept_of(records: Sequence[Record], *, is_whole: bool, without: str = "") -> Kept:
    """What the records (oldest first) come to, the exchange of the task `without` left out."""
    asked = {record.key: record for record in records if isinstance(record, SummaryAsked)}
    reach = _reach(records)
    summaries = [each for each in records if isinstance(each, Summary) and _is_asked(each, asked)]
    # The one that covers most: it may have been written before another that was asked for earlier.
    summary = max(reversed(summaries), key=lambda each: reach[each.key], default=None)
    done = {each.key for each in summaries}
    covered = reach[summary.key] if summary is not None else -1
    open_ones = [each for each in asked.values() if each.key not in done]
    return Kept(
        exchanges=tuple(each for number, each in _numbered(records) if number > covered and each.task_id != without),
        summary=summary,
        asked=open_ones[-1] if open_ones else None,
        is_whole=is_whole or covered >= 0,
    )


def _reach(records: Sequence[Record]) -> dict[str, int]:
    """For each summary that was asked for, by its key: the place of the last record that it covers; -1: it is not among
    these. A task that was brought back later has a later record, which no summary from before has heard of."""
    places: dict[str, int] = {}
    reach: dict[str, int] = {}
    for number, record in enumerate(records):
        if isinstance(record, Exchange):
            places[record.task_id] = number
        elif isinstance(record, SummaryAsked):
            reach[record.key] = places.get(record.up_to, -1)
    return reach


def _is_asked(summary: Summary, asked: dict[str, SummaryAsked]) -> bool:
    order = asked.get(summary.key)
    return order is not None and order.up_to == summary.up_to


def _position(exchanges: Sequence[Exchange], task_id: str) -> int:
    return next((number for number, each in enumerate(exchanges) if each.task_id == task_id), -1)


async def read_newest(
    state: StateStore,
    tenant: str,
    conversation_id: str,
    *,
    is_enough: Callable[[Kept], bool] = lambda _: False,
    without: str = "",
) -> Kept:
    """The newest part of a conversation, back to its last summary, or until `is_enough` says so.

    Raises `BackendUnavailable`.
    """
    name, limit = log_name(tenant, conversation_id), _FIRST_PAGE
    while True:
        entries = await state.read_log(name, limit=limit, newest_first=True)
        kept = kept_of(read_records(reversed(entries)), is_whole=len(entries) < limit, without=without)
        if kept.is_whole or limit >= MOST_EXCHANGES or is_enough(kept):
            return kept
        limit = min(4 * limit, MOST_EXCHANGES)


async def newest_before(
    state: StateStore, tenant: str, conversation_id: str, *, before: str = "", limit: int
) -> tuple[list[Exchange], bool]:
    """The last `limit` exchanges, oldest first, of those before that of the task `before` (empty: of all); and whether
    there are older ones. Raises `BackendUnavailable`."""
    name, page = log_name(tenant, conversation_id), max(_FIRST_PAGE, 2 * limit)
    while True:
        entries = await state.read_log(name, limit=page, newest_first=True)
        exchanges, is_whole = exchanges_of(read_records(reversed(entries))), len(entries) < page
        if before:
            exchanges = exchanges[: max(0, _position(exchanges, before))]
        if is_whole or len(exchanges) > limit:
            return exchanges[-limit:], len(exchanges) > limit
        page *= 4


def sound(messages: Iterable[Message]) -> list[Message]:
    """The same conversation as vendors take it: an outcome for every tool call, in the message after it; no outcome
    without its call; the user's messages that follow each other in one."""
    result: list[Message] = []
    for message in _joined(messages):
        calls = result[-1].tool_calls if result else ()
        parts, given = _with_outcomes_of(message, {call.id for call in calls})
        closing = tuple(_closed(call) for call in calls if call.id not in given)
        if closing and message.role is Role.USER:
            parts = (*closing, *parts)
        elif closing:
            result.append(Message(role=Role.USER, parts=closing))
        if parts:
            result.append(Message(role=message.role, parts=parts))
    if result and (calls := result[-1].tool_calls):
        result.append(Message(role=Role.USER, parts=tuple(_closed(call) for call in calls)))
    return result


def _with_outcomes_of(message: Message, wanted: set[str]) -> tuple[tuple[Part, ...], set[str]]:
    """A message's parts with outcomes of those calls alone, one each; and which those are."""
    given: set[str] = set()
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, ToolOutcome):
            if part.call_id not in wanted or part.call_id in given:
                continue
            given.add(part.call_id)
        parts.append(part)
    return tuple(parts), given


def _joined(messages: Iterable[Message]) -> list[Message]:
    result: list[Message] = []
    for message in messages:
        if result and message.role is Role.USER and result[-1].role is Role.USER:
            result[-1] = Message(role=Role.USER, parts=(*result[-1].parts, *message.parts))
        else:
            result.append(message)
    return result


def _closed(call: ToolCall) -> ToolOutcome:
    return ToolOutcome(call_id=call.id, name=call.name, content=NO_OUTCOME, is_error=True)
