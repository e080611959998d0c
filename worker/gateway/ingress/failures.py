"""What a failed run means to a client of a vendor's API: a status, and the vendor's own word for it."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from providers.errors import PERMANENT_PREFIX
from worker.gateway.ingress.narration import Event, Failed
from worker.gateway.problem import ErrorStyle, Problem, shutting_down
from worker.log import mask_text


class Meaning(Struct, frozen=True):
    """A failure in both vendors' words. Empty: what the status says by itself."""

    status: int
    code: str
    openai_type: str = ""
    anthropic_status: int = 0
    """0: the same."""
    anthropic_type: str = ""


_CANCELLED = Meaning(409, "cancelled")
_UNKNOWN = Meaning(500, "agent_failed")
_MEANINGS: Mapping[str, Meaning] = {
    "BudgetExceeded": Meaning(429, "insufficient_quota", "insufficient_quota", 402, "billing_error"),
    "RateLimited": Meaning(429, "rate_limit_exceeded"),
    "WaitedTooLong": Meaning(429, "rate_limit_exceeded"),
    "Overloaded": Meaning(503, "provider_overloaded", "", 529, "overloaded_error"),
    "Unavailable": Meaning(503, "provider_unavailable"),
    "UnknownProvider": Meaning(503, "provider_unavailable"),
    "AllTargetsFailed": Meaning(503, "provider_unavailable"),
    "PluginStartFailed": Meaning(503, "agent_unusable"),
    "AgentUnusable": Meaning(503, "agent_unusable"),
    "RouteNotFound": Meaning(503, "agent_unusable"),
    "BadPlugin": Meaning(503, "agent_unusable"),
    "BadPluginConfig": Meaning(503, "agent_unusable"),
    "PluginNotFound": Meaning(503, "agent_unusable"),
    "ProviderError": Meaning(502, "provider_failed"),
    "StreamBroken": Meaning(502, "provider_failed"),
    "BadResponse": Meaning(502, "provider_failed"),
    "InvalidOutput": Meaning(422, "invalid_output"),
    "AuthenticationFailed": Meaning(502, "provider_credentials"),
    "ProviderTimeout": Meaning(504, "provider_timeout"),
    "DeadlineExceeded": Meaning(504, "deadline_exceeded"),
    "RunIsOver": Meaning(409, "run_ended"),
    "RunTimeout": Meaning(504, "timeout"),
    "ContextTooLong": Meaning(400, "context_length_exceeded"),
    "InvalidRequest": Meaning(400, "provider_refused_request"),
    "UnfitTarget": Meaning(400, "provider_refused_request"),
    "InvalidTask": Meaning(400, "invalid_request"),
    "LimitReached": Meaning(400, "limit_reached"),
    "AccessDenied": Meaning(403, "access_denied"),
    "AgentInactive": Meaning(403, "access_denied"),
    "OtherNamespace": Meaning(403, "access_denied"),
    "OtherApp": Meaning(403, "access_denied"),
    "NotInGroup": Meaning(403, "access_denied"),
    "OutsideApp": Meaning(403, "access_denied"),
    "PluginDenied": Meaning(403, "access_denied"),
    "AgentNotFound": Meaning(404, "model_not_found"),
}


def meaning_of(failed: Failed) -> Meaning:
    """What kind of failure it is."""
    if failed.is_cancelled:
        return _CANCELLED
    return _MEANINGS.get(failed.error_type, _UNKNOWN)


def problem_of_failure(failed: Failed, style: ErrorStyle) -> Problem:
    """The failure as the answer to a request. The worker has tried again what was worth it, so that the vendor's client
    is asked not to."""
    meaning = meaning_of(failed)
    status, kind = meaning.status, meaning.openai_type
    if style is ErrorStyle.ANTHROPIC:
        status, kind = meaning.anthropic_status or meaning.status, meaning.anthropic_type
    return Problem(
        status,
        message_of(failed),
        title=meaning.code.replace("_", " "),  # 529 is the vendor's own, and has no name in any standard
        code=meaning.code,
        headers={"x-should-retry": "false"},
        extra={"type": kind} if kind else None,
    )


def problem_of_end(end: Event | None, style: ErrorStyle) -> Problem:
    """What is told of a run that has no answer, or none yet, when nobody waits for it any longer."""
    return problem_of_failure(end, style) if isinstance(end, Failed) else shutting_down()


def began_anew() -> Problem:
    """What ends a stream that has told what does not hold any more, in a form that can take nothing back."""
    return Problem(
        502,
        "the model's answer broke off and began anew with other words, which cannot be told in a stream: ask again",
        code="answer_began_anew",
    )


def message_of(failed: Failed) -> str:
    """Its text for a client."""
    return mask_text(failed.message).removeprefix(PERMANENT_PREFIX) or "the run failed"
