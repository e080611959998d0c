"""One act as it is written down: kubeswarm's audit record, schema `v1`, its keys in their order."""

from __future__ import annotations

import datetime
import enum
import uuid

from msgspec import Struct, field

from queue_backends.messages import JsonObject


class Action(enum.StrEnum):
    """What was done. The words are kubeswarm's."""

    TASK_RECEIVED = "task.received"
    TASK_COMPLETED = "task.completed"
    TASK_FAILED = "task.failed"
    TOOL_CALLED = "tool.called"
    DELEGATE_SENT = "delegate.sent"
    BUDGET_EXCEEDED = "budget.exceeded"


class Status(enum.StrEnum):
    """How it went."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    DENIED = "denied"


class Tokens(Struct, frozen=True):
    """Of a whole task."""

    input: int
    output: int


class Timing(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Milliseconds."""

    queue_ms: int = 0
    execution_ms: int = 0


class AuditError(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why it failed."""

    message: str
    code: str = ""
    """The kind of the error."""
    retryable: bool = False


class Env(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The process that did it."""

    service: str = ""
    version: str = ""
    pod_name: str = ""


class AuditRecord(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An act. It is never changed."""

    schema_version: str = field(default_factory=lambda: "v1")
    event_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    timestamp: str = field(default_factory=lambda: _now())
    action: Action
    status: Status
    namespace: str
    agent: str
    team: str = ""
    run_id: str = ""
    task_id: str = ""
    parent_event_id: str = ""
    """Of the task's `task.received`, in everything that it did."""
    trigger: str = ""
    """`user_request`, `delegation` or `retry`."""
    model: str = ""
    provider: str = ""
    """As it is configured; empty: it is known by the model's name."""
    tokens: Tokens | None = None
    detail: JsonObject | None = None
    timing: Timing | None = None
    error: AuditError | None = None
    env: Env


def _now() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z"
