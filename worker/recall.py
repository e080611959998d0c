"""What a journal tells whoever goes on with a task: where to go on, what was spent, what may not be repeated."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from providers import Message, Role, ToolCall, ToolOutcome
from providers.tool_loop import FinishedTurn, Resumption
from providers.turn_routing import Switch
from queue_backends import CallOutcome, Delivery, TokenUsage
from queue_backends.interfaces import ATTEMPTS_PER_DELIVERY
from worker.journal import (
    SIDE_TURNS,
    AttemptEnded,
    Entry,
    ModelCall,
    PluginShown,
    PluginStep,
    Recalled,
    SideCall,
    Switched,
    TakenOver,
    ToolFinished,
    ToolStarted,
    ToolWaits,
)

NO_OUTCOME = "the run ended before this call had an outcome: whether it took effect is not known"


class OldCall(Struct, frozen=True):
    """A tool call of an earlier delivery; without an outcome it was interrupted."""

    outcome: ToolOutcome | None


class LostCall(Struct, frozen=True):
    """A model call that may have been under way when the worker before died."""

    turn: int
    attempt: int
    switch: Switch | None = None
    """Where it went, if that was not where its route would have it by itself."""


class Past(Struct, frozen=True, kw_only=True):
    """What earlier deliveries of a task have left."""

    resumption: Resumption = Resumption()
    cost_usd: float | None = 0.0
    """None if the cost of a call is not known."""
    interrupted: frozenset[str] = frozenset()
    """Keys of tool calls that were started and have no outcome."""
    by_arguments: dict[tuple[str, str], list[OldCall]] = {}
    """Tool calls of a provider that runs whole tasks, by name and arguments, in order."""
    lost_calls: tuple[LostCall, ...] = ()
    """One; or two, where a slow one had a hedge; and those beside the run's own."""
    answered_by: str = ""
    """The target of a route that answered last."""
    waiting_since: float | None = None
    """Since when it has waited for its next model call, if that is why it was given back. Unix seconds."""
    looks: int = 0
    """How often in a row it was run for nothing but to find that what it is parked for is not there yet."""
    was_parked: bool = False
    """Ever."""
    waits_for: str = ""
    """Why it was put down when it ended last, if that was to wait, in words for people."""
    has_entries: bool = False
    entries: tuple[Entry, ...] = ()
    """All of them, for what few runs need to know."""
    recalled: Recalled | None = None
    """What its role remembered when it began; None if it began without."""
    plugin_entries: tuple[Entry, ...] = ()
    """All of them, of a run that an agent plugin has begun: `worker.agent_plugins.recording` reads them."""

    @property
    def has_begun(self) -> bool:
        """Whether there is something of it that a run goes on from: it must then begin with what that began with."""
        return bool(self.resumption.turns or self.by_arguments or self.plugin_entries)


NO_PAST = Past()
"""Of a task that nobody had before."""


def recall(entries: Sequence[Entry], delivery: Delivery) -> Past:
    """The past of a delivered task, from its journal."""
    calls = [entry for entry in entries if isinstance(entry, ModelCall)]
    costs = [call.usage.cost_usd for call in calls if call.usage.outcome is not CallOutcome.LOST]
    turns = _finished_turns(entries)
    in_tools = bool(turns) and any(call.id not in turns[-1].outcomes for call in turns[-1].end.message.tool_calls)
    finished = {entry.key for entry in entries if isinstance(entry, ToolFinished)}
    return Past(
        resumption=Resumption(turns=turns, used=_sum(call.usage.usage for call in calls)),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        interrupted=frozenset(e.key for e in entries if isinstance(e, ToolStarted) and e.key not in finished),
        by_arguments=_by_arguments(entries),
        lost_calls=(
            *(() if in_tools else _lost_calls(entries, calls, len(turns), delivery)),
            *lost_side_calls(entries, delivery),
        ),
        answered_by=next((call.target for call in reversed(calls) if call.target and call.end is not None), ""),
        waiting_since=_waiting_since(entries),
        looks=_looks(entries),
        was_parked=any(isinstance(entry, AttemptEnded) and entry.how == "parked" for entry in entries),
        waits_for=_waits_for(entries),
        has_entries=bool(entries),
        entries=tuple(entries),
        recalled=next((entry for entry in entries if isinstance(entry, Recalled)), None),
        plugin_entries=tuple(entries) if any(isinstance(e, PluginStep | PluginShown) for e in entries) else (),
    )


def conversation_of(entries: Sequence[Entry], answer: str, *, left_open: Collection[str] = ()) -> list[Message]:
    """What a run has added to its conversation. Calls without an outcome get one, as a vendor refuses open calls; but
    not those with the ids `left_open`, which are the client's to answer."""
    messages: list[Message] = []
    for turn in _finished_turns(entries):
        messages.append(turn.end.message)
        if calls := [call for call in turn.end.message.tool_calls if call.id not in left_open]:
            outcomes = tuple(turn.outcomes.get(call.id) or _closed(call) for call in calls)
            messages.append(Message(role=Role.USER, parts=outcomes))
    if answer:
        messages.append(Message.assistant(answer))
    return messages


def _closed(call: ToolCall) -> ToolOutcome:
    return ToolOutcome(call_id=call.id, name=call.name, content=NO_OUTCOME, is_error=True)


def _waiting_since(entries: Sequence[Entry]) -> float | None:
    """Of the latest postponement, unless a model call was made since."""
    for entry in reversed(entries):
        if isinstance(entry, ModelCall):
            return None
        if isinstance(entry, AttemptEnded) and entry.how != "released":
            return entry.since
    return None


def _waits_for(entries: Sequence[Entry]) -> str:
    last = next((entry for entry in reversed(entries) if isinstance(entry, AttemptEnded)), None)
    return last.error if last is not None and last.how == "parked" else ""


def _looks(entries: Sequence[Entry]) -> int:
    """Endings that only parked, since the run last did anything else."""
    found = 0
    for entry in reversed(entries):
        if isinstance(entry, AttemptEnded) and entry.how == "parked":
            found += 1
        elif not isinstance(entry, TakenOver | AttemptEnded | ToolStarted | ToolWaits):
            break
    return found


def _finished_turns(entries: Sequence[Entry]) -> tuple[FinishedTurn, ...]:
    """Turns that the run went on from, up to the first that is missing.

    A requeued task has a new chunk stream: what was finished before is shown there again, under the attempt of the
    delivery that took the task over.
    """
    ended_at = max((n for n, e in enumerate(entries) if isinstance(e, AttemptEnded) and e.how == "dead"), default=-1)
    shown_as = next((e.attempt for e in entries[ended_at + 1 :] if isinstance(e, TakenOver)), None)
    turns: list[FinishedTurn] = []
    for position, entry in enumerate(entries):
        if isinstance(entry, ModelCall) and entry.end is not None and entry.turn == len(turns):
            turn = FinishedTurn(attempt=entry.attempt, end=entry.end)
            if position < ended_at:
                turn = replace(turn, attempt=shown_as or entry.attempt, is_shown=shown_as is not None)
            turns.append(turn)
    for entry in entries:
        if isinstance(entry, ToolStarted | ToolWaits | ToolFinished) and entry.turn < len(turns):
            turns[entry.turn] = _with_tool(turns[entry.turn], entry)
    return tuple(turns)


def _with_tool(turn: FinishedTurn, entry: ToolStarted | ToolWaits | ToolFinished) -> FinishedTurn:
    if isinstance(entry, ToolFinished):
        return replace(turn, outcomes={**turn.outcomes, entry.outcome.call_id: entry.outcome})
    return replace(turn, announced=turn.announced | {entry.call_id}) if turn.is_shown else turn


def _by_arguments(entries: Sequence[Entry]) -> dict[tuple[str, str], list[OldCall]]:
    outcomes = {entry.key: entry.outcome for entry in entries if isinstance(entry, ToolFinished)}
    found: dict[tuple[str, str], list[OldCall]] = {}
    for entry in entries:
        if isinstance(entry, ToolStarted) and entry.arguments:
            found.setdefault((entry.name, entry.arguments), []).append(OldCall(outcomes.get(entry.key)))
    return found


def _lost_calls(
    entries: Sequence[Entry], calls: Sequence[ModelCall], turn: int, delivery: Delivery
) -> tuple[LostCall, ...]:
    """The calls that a crashed delivery may have had under way. Only one delivery can: each notes that it takes over
    before it sends its first call, so that those which left no note have sent none."""
    if delivery.redeliveries == 0:
        return ()
    entry_began_at = delivery.next_attempt - ATTEMPTS_PER_DELIVERY * delivery.redeliveries
    attempt = max([entry_began_at, *(entry.attempt for entry in entries if isinstance(entry, TakenOver))])
    used = {call.attempt for call in calls if call.turn == turn and call.attempt >= attempt}
    switches = {e.attempt: e.switch for e in entries if isinstance(e, Switched) and e.turn == turn}
    under_way = _pair_under_way(used, switches, attempt)
    if not under_way:
        announced = [number for number in switches if number not in used]
        under_way = [max([attempt, *(number + 1 for number in used), *announced])]
    return tuple(LostCall(turn, number, switches.get(number)) for number in under_way)


def lost_side_calls(entries: Sequence[Entry], delivery: Delivery) -> tuple[LostCall, ...]:
    """Calls beside the run's own of which only the beginning is known."""
    begun = [entry for entry in entries if isinstance(entry, SideCall)]
    if delivery.redeliveries == 0 or not begun:
        return ()
    ended = {entry.turn for entry in entries if isinstance(entry, ModelCall)}
    return tuple(
        LostCall(
            SIDE_TURNS + call.number,
            call.attempt,
            Switch(route="", target="", provider=call.provider, model=call.model, before="", reason=""),
        )
        for call in begun
        if SIDE_TURNS + call.number not in ended
    )


def _pair_under_way(ended: set[int], switches: Mapping[int, Switch], since: int) -> list[int]:
    """Which calls of the turn's last pair, a slow one and its hedge, have not ended. None if there was no pair, or a
    later call was made."""
    pairs = [(number, switch.beside) for number, switch in switches.items() if switch.beside is not None]
    if not pairs or (hedge := max(pairs)[0]) < since or max((*ended, *switches)) > hedge:
        return []
    return [number for number in (dict(pairs)[hedge], hedge) if number is not None and number not in ended]


def _sum(usages: Iterable[TokenUsage]) -> TokenUsage:
    total = TokenUsage()
    for usage in usages:
        total = total + usage
    return total
