"""What earlier deliveries of a message have left: steps that ended, and sections of the stream that are out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from providers import ToolOutcome
from providers.turn_routing import Switch
from queue_backends import Delivery
from worker.journal import (
    STEP_TURNS,
    AttemptEnded,
    Entry,
    ModelCall,
    PluginAnswer,
    PluginShown,
    PluginStep,
    Switched,
    TakenOver,
    ToolFinished,
    ToolStarted,
    ToolWaits,
)
from worker.recall import LostCall, Past, lost_side_calls, recall


class RecordedStep(Struct, frozen=True, kw_only=True):
    """A step that an earlier delivery has begun."""

    entry: PluginStep
    position: int
    """Among all steps, in the order in which they were begun."""


class Recording:
    """The past of one message. Empty for a message that nobody had before."""

    def __init__(self, entries: Sequence[Entry], delivery: Delivery) -> None:
        self._delivery = delivery
        self._lost_side_calls = lost_side_calls(entries, delivery)
        self._of_step: dict[int, list[tuple[int, Entry]]] = {}
        """By number, each with its place in the journal; 0: those of no step, which concern all."""
        for place, entry in enumerate(entries):
            if isinstance(entry, TakenOver | AttemptEnded):
                self._of_step.setdefault(0, []).append((place, entry))
            elif (
                isinstance(entry, ModelCall | Switched | ToolStarted | ToolWaits | ToolFinished)
                and entry.turn >= STEP_TURNS
            ):
                number, turn = divmod(entry.turn, STEP_TURNS)
                self._of_step.setdefault(number, []).append((place, replace(entry, turn=turn)))
        self.steps: dict[str, RecordedStep] = {}
        """By name: those that still count."""
        self.next_number = 1
        for position, entry in enumerate(each for each in entries if isinstance(each, PluginStep)):
            if (before := self.steps.get(entry.name)) is not None:  # it was begun anew, with something else
                self.void_from(before.position)
            self.steps[entry.name] = RecordedStep(entry=entry, position=position)
            self.next_number = max(self.next_number, entry.number + 1)
        self.answers = _answers(entries)
        """By number: of steps that are neither model nor tool calls, and errors."""
        self.outcomes: dict[str, ToolOutcome] = {e.key: e.outcome for e in entries if isinstance(e, ToolFinished)}
        """Of tool calls, by the key of the tool book."""
        finished = self.outcomes.keys()
        self.interrupted = frozenset(e.key for e in entries if isinstance(e, ToolStarted) and e.key not in finished)
        shown = [entry for entry in entries if isinstance(entry, PluginShown)]
        self.next_section = max((entry.section for entry in shown), default=-1) + 1
        # A dead letter that is requeued begins a new stream: what was shown before is shown there again.
        since = max((n for n, e in enumerate(entries) if isinstance(e, AttemptEnded) and e.how == "dead"), default=-1)
        self.shown = Counter(entry.label for entry in entries[since + 1 :] if isinstance(entry, PluginShown))
        """Labels of sections that are out."""

    def void_from(self, position: int) -> int:
        """Steps that were begun since then do not count any more; returns how many there were."""
        void = [name for name, step in self.steps.items() if step.position >= position]
        for name in void:
            del self.steps[name]
        return len(void)

    def past_of(self, number: int) -> Past:
        """The past of one model call, as the tool loop goes on from it: its turns are counted from 0."""
        placed = sorted([*self._of_step.get(0, ()), *self._of_step.get(number, ())], key=lambda each: each[0])
        return recall([entry for _, entry in placed], self._delivery)

    def lost_calls(self) -> tuple[LostCall, ...]:
        """The model calls that may have been under way when the worker before died."""
        if self._delivery.redeliveries == 0:
            return ()
        of_steps = (
            LostCall(call.turn + step.entry.number * STEP_TURNS, call.attempt, call.switch or _place_of(step.entry))
            for step in self.steps.values()
            if step.entry.what == "model" and not self._has_ended(step.entry.number)
            for call in self.past_of(step.entry.number).lost_calls
        )
        return (*of_steps, *self._lost_side_calls)

    def _has_ended(self, number: int) -> bool:
        return number in self.answers


def _answers(entries: Sequence[Entry]) -> dict[int, PluginAnswer]:
    """Values stay; an error counts until the attempt has ended that met it: then it is tried again. A run that was
    parked goes on with the same attempt."""
    answers: dict[int, PluginAnswer] = {}
    for entry in entries:
        if isinstance(entry, PluginAnswer):
            answers[entry.number] = entry
        elif isinstance(entry, AttemptEnded) and entry.how != "parked":
            answers = {number: answer for number, answer in answers.items() if not answer.error_type}
    return answers


def _place_of(step: PluginStep) -> Switch | None:
    """Where a call went, for the record of one that was lost."""
    if not step.provider and not step.model:
        return None
    return Switch(route="", target="", provider=step.provider, model=step.model, before="", reason="")
