"""The acts of tasks, as their spans tell them: whoever traces a run has said all that its audit log needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from msgspec import Struct
from msgspec.structs import replace

from providers import AgentConfig, BudgetExceeded, ProviderError
from queue_backends import Task, TokenUsage
from worker.audit.record import Action, AuditError, AuditRecord, Env, Status, Timing, Tokens
from worker.audit.redaction import Redaction, encodable
from worker.audit.trail import AuditTrail
from worker.log import mask_text
from worker.parking import Parked
from worker.spans import Span
from worker.teams.marks import marks_of
from worker.telemetry import Telemetry

_MOST_ERROR_CHARS = 1000
_GOES_ON = frozenset({"released", "lease lost"})
_IS_LATE = "timed out"
"""As `worker.task_run.Stop` has them: spans tell it in its words."""
_under_way: ContextVar[AuditRecord | None] = ContextVar("audited_task", default=None)
"""The `task.received` of the run that this is part of."""


class Writer(Struct, frozen=True, kw_only=True, eq=False):
    """What all acts of a process need to be written down."""

    trail: AuditTrail
    redaction: Redaction
    namespace: str
    agent: str
    """Of tasks that name none."""
    env: Env
    config_of: Callable[[Task], AgentConfig]
    """Raises what resolving an agent raises."""
    tells_prompts: bool = False

    def write(self, record: AuditRecord, detail: Mapping[str, Any] | None = None) -> None:
        """Take an act."""
        fit = self.redaction.of(detail) if detail else None
        self.trail.write_down(record if fit is None else replace(record, detail=fit))


class AuditedTelemetry(Telemetry):
    """Opens the spans of another one, and writes the acts that they tell down."""

    def __init__(self, inner: Telemetry, writer: Writer) -> None:
        super().__init__()
        self._inner = inner
        self._writer = writer

    @property
    def enabled(self) -> bool:
        """Whether spans go anywhere."""
        return self._inner.enabled

    def task(
        self, task: Task, *, agent: str = "", role: str = "", team: str = "", queue_wait_s: float | None = None
    ) -> Span:
        """As the inner one's."""
        span = self._inner.task(task, agent=agent, role=role, team=team, queue_wait_s=queue_wait_s)
        queue_ms = 0 if queue_wait_s is None else round(queue_wait_s * 1000)
        return _TaskSpan(span, self._writer, _received(task, team, queue_ms, self._writer), task)

    def model_call(self, *, provider: str, model: str, turn: int = 0, attempt: int = 0, max_tokens: int = 0) -> Span:
        """As the inner one's."""
        return self._inner.model_call(provider=provider, model=model, turn=turn, attempt=attempt, max_tokens=max_tokens)

    def tool_call(self, *, name: str, kind: str = "", call_id: str = "") -> Span:
        """As the inner one's."""
        span = self._inner.tool_call(name=name, kind=kind, call_id=call_id)
        received = _under_way.get()
        return span if received is None else _ToolSpan(span, self._writer, received, name, kind)

    def advice(self, *, advisor: str, tool: str) -> Span:
        """As the inner one's."""
        return self._inner.advice(advisor=advisor, tool=tool)

    async def shutdown(self, timeout_s: float = 5.0) -> None:
        """As the inner one's."""
        await self._inner.shutdown(timeout_s)


def _received(task: Task, team: str, queue_ms: int, writer: Writer) -> AuditRecord:
    marks = marks_of(task.meta)
    delegated = marks is not None and marks.depth > 0
    try:
        config = writer.config_of(task)
    except Exception:  # noqa: BLE001 - the run itself finds out, and says why it cannot begin
        config = AgentConfig(model="")
    return AuditRecord(
        action=Action.TASK_RECEIVED,
        status=Status.SUCCESS,
        namespace=writer.namespace or task.tenant or "default",
        agent=task.agent or writer.agent,
        team=team,
        run_id=marks.run if marks is not None else task.meta.get("run_name", ""),
        task_id=task.id,
        trigger="retry" if task.attempt else "delegation" if delegated else "user_request",
        model=config.model,
        provider=config.provider,
        timing=Timing(queue_ms=queue_ms) if queue_ms else None,
        env=writer.env,
    )


class _Audited(Span):
    """A span that hands everything on, and remembers how the step went."""

    __slots__ = ("_code", "_failed", "_inner", "_received", "_started", "_writer")

    def __init__(self, inner: Span, writer: Writer, received: AuditRecord) -> None:
        self._inner = inner
        self._writer = writer
        self._received = received
        self._started = time.monotonic()
        self._failed: BaseException | str | None = None
        self._code = ""

    def set(self, name: str, value: str | bool | int | float | None) -> None:
        self._inner.set(name, value)

    def usage(self, usage: TokenUsage) -> None:
        self._inner.usage(usage)

    def event(self, name: str, attributes: Mapping[str, str]) -> None:
        self._inner.event(name, attributes)

    def fail(self, error: BaseException | str, *, kind: str = "") -> None:
        self._failed = error
        self._code = kind or (type(error).__name__ if isinstance(error, BaseException) else "error")
        self._inner.fail(error, kind=kind)

    def end(self) -> None:
        self._inner.end()

    def _took_ms(self) -> int:
        return round((time.monotonic() - self._started) * 1000)

    def _error(self) -> AuditError | None:
        if self._failed is None:
            return None
        retryable = isinstance(self._failed, ProviderError) and self._failed.retryable
        message = encodable(mask_text(str(self._failed)))[:_MOST_ERROR_CHARS]
        return AuditError(message=message, code=self._code, retryable=retryable)

    def _next(self, action: Action, status: Status, **more: Any) -> AuditRecord:
        """A further act of the same task."""
        return AuditRecord(
            action=action,
            status=status,
            namespace=self._received.namespace,
            agent=self._received.agent,
            team=self._received.team,
            run_id=self._received.run_id,
            task_id=self._received.task_id,
            parent_event_id=self._received.event_id,
            model=self._received.model,
            provider=self._received.provider,
            env=self._received.env,
            **more,
        )


class _TaskSpan(_Audited):
    """One delivery of a task."""

    __slots__ = ("_task", "_token", "_used")

    def __init__(self, inner: Span, writer: Writer, received: AuditRecord, task: Task) -> None:
        super().__init__(inner, writer, received)
        self._task = task
        self._used: TokenUsage | None = None
        self._token: Token[AuditRecord | None] | None = None

    def usage(self, usage: TokenUsage) -> None:
        self._used = usage
        super().usage(usage)

    def __enter__(self) -> Self:
        self._inner.__enter__()
        self._token = _under_way.set(self._received)
        detail: dict[str, Any] = {"attempt": self._task.attempt}
        if self._task.tenant:
            detail["tenant"] = self._task.tenant
        if self._writer.tells_prompts:
            detail["input"] = self._task.prompt
        self._writer.write(self._received, detail)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._failed is None:
            self._failed, self._code = error, type(error).__name__
        self._write_end()
        if self._token is not None:
            _under_way.reset(self._token)
        self._inner.__exit__(kind, error, trace)

    def _write_end(self) -> None:
        """A run that waits for a person or another task, or is somebody else's by now, has not ended."""
        timing = Timing(execution_ms=self._took_ms())
        said = str(self._failed) if self._code == "stopped" else ""
        if said in _GOES_ON:
            return
        if self._failed is not None:
            if isinstance(self._failed, BudgetExceeded):
                self._writer.write(self._next(Action.BUDGET_EXCEEDED, Status.DENIED, error=self._error()))
            self._writer.write(
                self._next(
                    Action.TASK_FAILED,
                    Status.TIMEOUT if said == _IS_LATE else Status.ERROR,
                    timing=timing,
                    error=self._error(),
                )
            )
        elif self._used is not None:
            tokens = Tokens(self._used.input_tokens or 0, self._used.output_tokens or 0)
            self._writer.write(self._next(Action.TASK_COMPLETED, Status.SUCCESS, timing=timing, tokens=tokens))


class _ToolSpan(_Audited):
    """One call of a tool."""

    __slots__ = ("_arguments", "_content", "_kind", "_name")

    def __init__(self, inner: Span, writer: Writer, received: AuditRecord, name: str, kind: str) -> None:
        super().__init__(inner, writer, received)
        self._name = name
        self._kind = kind
        self._arguments = ""
        self._content = ""

    def contents(self, arguments: str, content: str) -> None:
        self._arguments, self._content = arguments, content

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Parked):  # it is made again when what it waits for is there
            self._inner.__exit__(kind, error, trace)
            return
        if error is not None:
            self._failed, self._code = error, type(error).__name__
        is_delegation = self._kind == "builtin" and self._name == "delegate" and self._failed is None
        detail = {
            "durationMs": self._took_ms(),
            "input": self._arguments,
            "output": self._content,
            "tool": self._name,
            "toolType": self._kind,
        }
        status = Status.SUCCESS if self._failed is None else Status.ERROR
        self._writer.write(self._next(Action.TOOL_CALLED, status, error=self._error()), detail)
        if is_delegation:
            self._writer.write(self._next(Action.DELEGATE_SENT, status), {"input": self._arguments})
        self._inner.__exit__(kind, error, trace)
