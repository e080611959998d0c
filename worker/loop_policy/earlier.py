"""What a run's journal tells its loop policy: what earlier deliveries have called, found and spent. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from providers import ToolCall
from providers.tool_loop import arguments_of, canonical
from worker.journal import SIDE_TURNS, STEP_TURNS, Entry, ModelCall, Sandboxed, SideCall, ToolFinished, ToolStarted
from worker.loop_policy.fingerprints import fingerprint_of


class Consulted(Struct):
    """How often one advisor was asked, and what that took."""

    calls: int = 0
    tokens: int = 0


class Earlier(Struct):
    """Empty for a run that nobody had before."""

    done: set[str] = field(default_factory=set)
    """Fingerprints of calls that succeeded."""
    begun: int = 0
    """How many calls were begun: each may have left a finding, also one that has no outcome."""
    results: list[tuple[str, str]] = field(default_factory=list)
    """Tool and result, since the last summary."""
    sandboxed: dict[int, Sandboxed] = field(default_factory=dict)
    """By number."""
    consulted: dict[str, Consulted] = field(default_factory=dict)
    """By the advisor's name."""

    def consulted_by(self, advisor: str) -> Consulted:
        """How often this one was asked."""
        return self.consulted.setdefault(advisor, Consulted())


def earlier_of(entries: Sequence[Entry]) -> Earlier:
    """What the entries tell."""
    earlier = Earlier()
    beside = {SIDE_TURNS + entry.number: entry for entry in entries if isinstance(entry, SideCall)}
    ended = ended_calls(entries)
    last = {entry.key: entry for entry in entries if isinstance(entry, ToolFinished)}
    asked, summed_up = _calls(entries), set[str]()
    started = {entry.key: entry for entry in entries if isinstance(entry, ToolStarted)}
    earlier.begun = len(started)
    for entry in entries:
        if isinstance(entry, ModelCall) and entry.turn in beside:
            side = beside[entry.turn]
            if side.what == "advice":
                if entry.end is None or is_read(side, ended):  # else it is counted when it is read
                    earlier.consulted_by(side.about).tokens += entry.usage.usage.total_tokens
            elif side.what == "compression" and entry.end is not None and is_read(side, ended):
                earlier.results.clear()  # the model has read the summary
                summed_up.add(side.call_id)
        elif isinstance(entry, SideCall) and entry.what == "advice":
            earlier.consulted_by(entry.about).calls += is_read(entry, ended)
        elif isinstance(entry, Sandboxed):
            earlier.sandboxed[entry.number] = entry
        elif isinstance(entry, ToolFinished) and entry is last[entry.key] and not entry.outcome.is_error:
            name, arguments = _asked_for(entry, asked, started)
            earlier.done.add(fingerprint_of(name, arguments))
            if entry.outcome.call_id not in summed_up:
                earlier.results.append((name, entry.outcome.content))
    return earlier


def ended_calls(entries: Sequence[Entry]) -> dict[str, ToolFinished]:
    """By id: what the model reads, or is going to read, of its tool calls."""
    return {entry.outcome.call_id: entry for entry in entries if isinstance(entry, ToolFinished)}


def is_read(side: SideCall, ended: Mapping[str, ToolFinished]) -> bool:
    """Whether what was answered beside the run is part of that. Advice is what its own tool call has answered; a
    summary is added later."""
    found = ended.get(side.call_id)
    return found is not None and (side.what == "advice" or not found.is_raw)


def _calls(entries: Sequence[Entry]) -> dict[tuple[int, str], ToolCall]:
    """By turn and id: the calls that models have asked for."""
    return {
        (entry.turn, call.id): call
        for entry in entries
        if isinstance(entry, ModelCall) and entry.end is not None
        for call in entry.end.message.tool_calls
    }


def _asked_for(
    entry: ToolFinished, asked: dict[tuple[int, str], ToolCall], started: dict[str, ToolStarted]
) -> tuple[str, str]:
    """Name and arguments of a call that has ended. Calls of an agent plugin's step have its number before their id."""
    begun, outcome = started.get(entry.key), entry.outcome
    if begun is not None and begun.arguments:
        return begun.name, begun.arguments
    inner = outcome.call_id.removeprefix(f"{entry.turn // STEP_TURNS}.")
    call = asked.get((entry.turn, outcome.call_id)) or asked.get((entry.turn, inner))
    return outcome.name, "" if call is None else canonical(arguments_of(call))
