"""Tools whose calls a person has to approve: the question, and what becomes of the call."""

from __future__ import annotations

import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

import structlog

from providers import AgentConfig, ToolCall, ToolOutcome
from providers.tool_loop import arguments_of
from queue_backends import Task
from queue_backends.messages import encode_json
from worker.approvals.approvals import Approvals
from worker.approvals.question import Approval, Verdict, shortened
from worker.parking import Parked
from worker.settings.approvals import ApprovalSettings
from worker.teams.errors import TemplateError
from worker.teams.marks import Marks
from worker.teams.plan import Approval as HowToAsk
from worker.teams.plan import Role
from worker.tools.outcome import failed
from worker.tools.redaction import redact, secret_values

LONGEST_S = 6 * 24 * 3600.0
"""For a task: what belongs to one that nobody works at is kept for a week."""
LONGEST_ARGUMENTS_CHARS = 64 * 1024

log = structlog.get_logger(__name__)


def needs_approval(config: AgentConfig, role: Role | None, tool: str) -> bool:
    """Whether a person has to approve calls of a tool. What a task may override has no say in that."""
    patterns = config.approve_tools if role is None else (*config.approve_tools, *role.approve_tools)
    return any(fnmatchcase(tool, pattern) for pattern in patterns)


def waits_for(tool: str) -> str:
    """What a run waits for meanwhile, in words."""
    return f"approval of {tool}"


class ToolApprovals:
    """Asks for a worker's runs."""

    def __init__(
        self,
        approvals: Approvals,
        settings: ApprovalSettings,
        environment: Mapping[str, str],
    ) -> None:
        """Secrets of `environment` are kept out of what people are shown."""
        self._approvals = approvals
        self._settings = settings
        self._environment = environment
        self._secrets = secret_values(environment)

    @property
    def store(self) -> Approvals:
        """Where the questions are."""
        return self._approvals

    async def refused(
        self, call: ToolCall, identity: str, task: Task, role: Role | None, marks: Marks | None
    ) -> ToolOutcome | None:
        """What the model is told of a call that is not to be made; None for one that was approved.

        The question is put once per call, `identity` telling a task's calls apart. Raises `Parked` until it is decided,
        and `BackendUnavailable`.
        """
        how = HowToAsk() if role is None or role.approval is None else role.approval
        is_own = role is not None and role.approval is not None
        timeout_s = min(how.timeout_s if is_own else self._settings.timeout_s, LONGEST_S)
        fallback = how.fallback if is_own else self._settings.fallback
        question = self._question(call, task, marks, how.message, "approve" if fallback == "approve" else "reject")
        asked = await self._approvals.open(
            question,
            key=f"tool/{task.id}/{identity}",
            timeout_s=timeout_s,
            webhook=how.webhook or self._environment.get(how.webhook_env, ""),
        )
        if time.time() >= asked.until and not asked.decided:
            asked = await self._approvals.get(asked.id)
        if not asked.decided:
            raise Parked(asked.until, waits_for(call.name), is_ready=lambda: self._is_decided(asked.id))
        return None if asked.verdict is Verdict.APPROVE else failed(call, _refusal(call, asked))

    async def _is_decided(self, approval_id: str) -> bool:
        return (await self._approvals.get(approval_id)).decided

    def _question(
        self, call: ToolCall, task: Task, marks: Marks | None, message: str, fallback: Literal["approve", "reject"]
    ) -> Approval:
        arguments = self._shown(arguments_of(call))
        who = task.agent or (f"role {marks.role} of team {marks.team}" if marks is not None else "the default agent")
        return Approval(
            what="tool",
            message=_rendered(message, call.name, arguments) or f"May {who} call {call.name}?",
            tenant=task.tenant,
            run=marks.run if marks is not None else "",
            step=marks.step if marks is not None else "",
            team=marks.team if marks is not None else "",
            role=marks.role if marks is not None else "",
            task=task.id,
            agent=task.agent,
            tool=call.name,
            call_id=call.id,
            arguments=arguments,
            fallback=fallback,
        )

    def _shown(self, arguments: Any) -> Any:
        """The arguments without secrets. Very long ones are text, and cut."""
        try:
            shown = _redacted(arguments, self._secrets)
        except RecursionError:  # nested so deep that nobody would read it as anything but text
            shown = redact(encode_json(arguments).decode(), self._secrets)
        text = encode_json(shown).decode()
        if len(text) <= LONGEST_ARGUMENTS_CHARS:
            return shown
        return f"{text[:LONGEST_ARGUMENTS_CHARS]}… [cut: {len(text)} characters]"


def _redacted(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, list):
        return [_redacted(each, secrets) for each in value]
    if isinstance(value, dict):
        return {redact(name, secrets): _redacted(each, secrets) for name, each in value.items()}
    return value


def _rendered(message: str, tool: str, arguments: Any) -> str:
    """A role's own words. A template that cannot be evaluated is shown as it stands: the question is put all the
    same."""
    if not message:
        return ""
    from worker.teams.templates import Template  # only where a role says how it asks

    try:
        text = Template.parse(message, name="approval").render({"tool": tool, "arguments": arguments})
    except TemplateError as error:
        log.warning("the message of an approval cannot be evaluated", error=str(error))
        text = message
    return shortened(text)


def _refusal(call: ToolCall, asked: Approval) -> str:
    """For the model to read."""
    if asked.timed_out:
        return (
            f'not called: "{call.name}" needs a person\'s approval, and nobody answered in time. Go on without it, or '
            "say what you could not do"
        )
    said = f": {asked.comment}" if asked.comment else ""
    return (
        f'not called: a person has rejected this call of "{call.name}"{said}. Do not make it again unless you are '
        "asked to; go on without it, or say what you could not do"
    )
