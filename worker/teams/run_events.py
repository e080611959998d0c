"""What can happen to a run. Its log holds these, each at most once: the id says what happened, so whoever writes it
first is the one who is believed, and two drivers at once do no harm."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from queue_backends import TokenUsage
from queue_backends.messages import encode_json
from worker.teams.run_state import Phase

MOST_OUTPUT_BYTES = 512 * 1024
"""Of any output: an event is one message for the store, and the smallest of the engines' limits is 1 MiB."""


class _Event(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"):
    at: float
    """Unix seconds."""


class RunStarted(_Event, frozen=True, kw_only=True, tag="run_started"):
    """Somebody drives it for the first time."""

    @property
    def id(self) -> str:
        """Of its record."""
        return "started"


class StepStarted(_Event, frozen=True, kw_only=True, tag="step_started"):
    """An iteration of a step has begun."""

    step: str
    iteration: int = 1
    role: str = ""
    """Who does it."""
    picked: dict[str, str] = {}
    """How the role was found, where it was looked up: its tasks carry this, too."""

    @property
    def id(self) -> str:
        """Of its record."""
        return f"step/{self.step}/{self.iteration}/started"


class TaskSubmitted(_Event, frozen=True, kw_only=True, tag="task_submitted"):
    """A task, or a run of another team, works for a step."""

    step: str
    iteration: int
    attempt: int
    """The step's try, from 1."""
    purpose: str
    """As `Marks.purpose`."""
    task_id: str = ""
    run_id: str = ""
    """If a team does it: its run."""

    @property
    def id(self) -> str:
        """Of its record."""
        return f"work/{self.step}/{self.iteration}/{self.attempt}/{self.purpose}/submitted"


class TaskEnded(_Event, frozen=True, kw_only=True, tag="task_ended"):
    """That task, or run, has ended."""

    step: str
    iteration: int
    attempt: int
    purpose: str
    task_id: str = ""
    run_id: str = ""
    output: str = ""
    error: str = ""
    """Empty exactly when it succeeded."""
    is_lost: bool = False
    """Nobody knows what became of it: its queue has forgotten it."""
    usage: TokenUsage = TokenUsage()
    cost_usd: float | None = None
    artifacts: dict[str, str] = {}
    stop_reason: str = ""

    @property
    def id(self) -> str:
        """Of its record."""
        return f"work/{self.step}/{self.iteration}/{self.attempt}/{self.purpose}/ended"


class StepRetried(_Event, frozen=True, kw_only=True, tag="step_retried"):
    """A try was not good enough; the next one begins."""

    step: str
    iteration: int
    attempt: int
    """The one that failed."""
    message: str
    """What watchers show: `[retry 1] validation failed: …`."""
    problem: str = ""
    """What was wrong, as the next try is told."""
    kind: Literal["repair", "retry", "lost"] = "retry"
    """`repair`: the next try goes on from this one's answer. `retry`: it begins anew, because a validation failed;
    `lost`: because the task has vanished from its queue."""

    @property
    def id(self) -> str:
        """Of its record."""
        return f"step/{self.step}/{self.iteration}/{self.attempt}/retried"


class StepEnded(_Event, frozen=True, kw_only=True, tag="step_ended"):
    """An iteration of a step has ended."""

    step: str
    iteration: int
    phase: Phase
    output: str | None = None
    """What later steps see; None: the answer of the last try, as it stands there."""
    data: Any = None
    """The parsed answer, where the step has a schema and the answer fits it."""
    validated: bool = False
    message: str = ""
    reason: str = ""
    """In one word, why the run fails with it; empty: `StepFailed`."""
    again: bool = False
    """Whether another iteration follows."""

    @property
    def id(self) -> str:
        """Of its record."""
        return f"step/{self.step}/{self.iteration}/ended"


class StepSkipped(_Event, frozen=True, kw_only=True, tag="step_skipped"):
    """A step is left out."""

    step: str
    message: str = ""

    @property
    def id(self) -> str:
        """Of its record."""
        return f"step/{self.step}/skipped"


class ApprovalAsked(_Event, frozen=True, kw_only=True, tag="approval_asked"):
    """A step waits for a person."""

    step: str
    approval_id: str
    message: str = ""
    until: float = 0.0
    """When the fallback decides. Unix seconds."""

    @property
    def id(self) -> str:
        """Of its record."""
        return f"step/{self.step}/asked"


class ApprovalDecided(_Event, frozen=True, kw_only=True, tag="approval_decided"):
    """The person, or the fallback, has decided."""

    step: str
    approval_id: str
    outcome: Literal["approve", "reject", "skip"]
    by: str = ""
    """Who; empty: nobody answered in time."""
    note: str = ""

    @property
    def id(self) -> str:
        """Of its record."""
        return f"step/{self.step}/decided"


class Delegated(_Event, frozen=True, kw_only=True, tag="delegated"):
    """A role has given a task to another one, or to itself."""

    call_id: str
    """Of the tool call, unique in the run: a call that is made again delegates nothing again."""
    task_id: str
    step: str
    parent: str
    """The task that made it."""
    role: str
    prompt: str = ""
    """Shortened."""
    depth: int = 1
    purpose: str = "delegated"
    """`delegated` or `subtask`."""

    @property
    def id(self) -> str:
        """Of its record."""
        return f"child/{self.call_id}/delegated"


class ChildEnded(_Event, frozen=True, kw_only=True, tag="child_ended"):
    """A delegated task has ended."""

    task_id: str
    output: str = ""
    error: str = ""
    usage: TokenUsage = TokenUsage()
    cost_usd: float | None = None

    @property
    def id(self) -> str:
        """Of its record."""
        return f"child/{self.task_id}/ended"


class Collected(_Event, frozen=True, kw_only=True, tag="collected"):
    """A role has been given the results of tasks that it delegated."""

    call_id: str
    task_ids: tuple[str, ...]

    @property
    def id(self) -> str:
        """Of its record."""
        return f"collected/{self.call_id}"


class CancelRequested(_Event, frozen=True, kw_only=True, tag="cancel_requested"):
    """Somebody wants it to end."""

    by: str = ""
    reason: str = ""

    @property
    def id(self) -> str:
        """Of its record."""
        return "cancel"


class RunEnded(_Event, frozen=True, kw_only=True, tag="run_ended"):
    """The last event of a run."""

    phase: Phase
    reason: str = ""
    message: str = ""
    output: str = ""
    usage: TokenUsage = TokenUsage()
    cost_usd: float | None = None

    @property
    def id(self) -> str:
        """Of its record."""
        return "ended"


Event: TypeAlias = (
    RunStarted
    | StepStarted
    | TaskSubmitted
    | TaskEnded
    | StepRetried
    | StepEnded
    | StepSkipped
    | ApprovalAsked
    | ApprovalDecided
    | Delegated
    | ChildEnded
    | Collected
    | CancelRequested
    | RunEnded
)

_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode_event(event: Event) -> bytes:
    """As it stands in the log."""
    return encode_json(event)


def decode_event(value: bytes) -> Event | None:
    """An event of a log; None for one that a newer version wrote and this one does not know."""
    try:
        return _decoder.decode(value)
    except msgspec.DecodeError:
        return None
