"""The steps of a message: which one a call of the plugin's code is, and whether it was done before."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from providers import LimitReached
from queue_backends import Delivery, LogRecord
from worker.agent_plugins.errors import PluginMisuse
from worker.agent_plugins.recording import Recording
from worker.journal import STEP_TURNS, Journal, PluginAnswer, PluginStep

MOST_STEPS = 10_000
MOST_KEY_CHARS = 200
MOST_ANSWER_BYTES = 256 * 1024
"""A longer answer is not recorded: after a crash the step is done again."""

log = structlog.get_logger(__name__)


class Step(Struct, frozen=True, kw_only=True):
    """One step."""

    number: int
    name: str
    what: str
    digest: str
    is_recorded: bool
    """An earlier delivery has begun it, with the same request."""

    @property
    def first_turn(self) -> int:
        """The number of its first turn among all of the task's."""
        return self.number * STEP_TURNS


class Steps:
    """Gives steps their names and numbers, and writes what becomes of them."""

    def __init__(self, recording: Recording, journal: Journal, delivery: Delivery) -> None:
        self.recording = recording
        self._journal = journal
        self._delivery = delivery
        self._unnamed = 0
        self._keys: set[str] = set()
        self._next_number = recording.next_number

    @property
    def count(self) -> int:
        """How many have begun in this delivery."""
        return self._unnamed + len(self._keys)

    def begin(self, what: str, request: Any, key: str = "") -> Step:
        """The next step of the plugin's code. A recorded one counts if it asked for the same; if it did not, it and all
        that began after it are done anew.

        Raises `PluginMisuse` for a key that is used twice, `LimitReached` for too many steps.
        """
        if self.count >= MOST_STEPS:
            raise LimitReached(f"the message has had {MOST_STEPS} steps: the plugin goes round in circles, or split it")
        name, digest = self._name(key), digest_of(what, request)
        recorded = self.recording.steps.get(name)
        if recorded is not None and recorded.entry.digest == digest and recorded.entry.what == what:
            return Step(number=recorded.entry.number, name=name, what=what, digest=digest, is_recorded=True)
        if recorded is not None:
            void = self.recording.void_from(recorded.position)
            log.warning(
                "an agent plugin asks for something else than before its worker died: its record is not used from here",
                task=self._delivery.task.id,
                step=name,
                what=what,
                steps_discarded=void,
            )
        number, self._next_number = self._next_number, self._next_number + 1
        return Step(number=number, name=name, what=what, digest=digest, is_recorded=False)

    def begun(self, step: Step, *, provider: str = "", model: str = "") -> tuple[LogRecord, ...]:
        """What to store before a step takes effect; nothing if that stands already."""
        if step.is_recorded:
            return ()
        entry = PluginStep(
            worker=self._delivery.worker,
            number=step.number,
            name=step.name,
            what=step.what,
            digest=step.digest,
            provider=provider,
            model=model,
        )
        return self._journal.records(self._delivery.task.id, entry)

    def ended(self, step: Step, value: Any = None, *, error: str = "", error_type: str = "") -> tuple[LogRecord, ...]:
        """What to store of a step that has ended; nothing if that is too long."""
        entry = PluginAnswer(
            worker=self._delivery.worker,
            number=step.number,
            attempt=self._delivery.next_attempt,
            value=value,
            error=error[:MOST_ANSWER_BYTES],
            error_type=error_type,
        )
        records = self._journal.records(self._delivery.task.id, entry)
        return records if all(len(record.value) <= MOST_ANSWER_BYTES for record in records) else ()

    def answer(self, step: Step) -> PluginAnswer | None:
        """What is recorded of a step's end."""
        return self.recording.answers.get(step.number) if step.is_recorded else None

    def _name(self, key: str) -> str:
        if not key:
            self._unnamed += 1
            return f"#{self._unnamed - 1}"
        if len(key) > MOST_KEY_CHARS:
            raise PluginMisuse(f"the key of a step has {len(key)} characters, at most {MOST_KEY_CHARS} are allowed")
        if key in self._keys:
            raise PluginMisuse(f"the key {key!r} was used for another step of this message: use each key once")
        self._keys.add(key)
        return f"={key}"


def digest_of(what: str, request: Any) -> str:
    """The same for the same request. Raises `PluginMisuse` for what cannot be written as JSON."""
    try:
        plain = msgspec.json.encode(request, order="sorted")
    except (TypeError, ValueError, RecursionError) as error:
        raise PluginMisuse(f"the request of a {what} step cannot be written as JSON: {error}") from error
    return hashlib.blake2b(plain, digest_size=16).hexdigest()
