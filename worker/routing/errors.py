"""What can go wrong with a route, beside what goes wrong with its targets."""

from __future__ import annotations

from collections.abc import Mapping

from providers import InvalidRequest, ProviderError
from queue_backends import InvalidTask
from worker.errors import Postponed


class RouteNotFound(InvalidTask):
    """No route of that name is declared: no retry will find it either."""


class UnfitTarget(InvalidRequest):
    """A target cannot be called at all; others of its route may."""


class AllTargetsFailed(ProviderError):
    """Every target of a route has failed. Retryable if any of them may succeed later; `reasons` has each one's."""

    def __init__(self, route: str, reasons: Mapping[str, Exception]) -> None:
        said = "; ".join(f"{target}: {error}" for target, error in reasons.items())
        super().__init__(f"route {route}: no target gave an answer: {said}")
        self.reasons = dict(reasons)
        passing = [error for error in reasons.values() if _may_pass(error)]
        self.retryable = bool(passing)
        waits_s = [wait_s for error in passing if (wait_s := _wait_s(error)) is not None]
        # One that does not say when it can be asked again can be asked at any time.
        self.retry_after_s = min(waits_s) if waits_s and len(waits_s) == len(passing) else None


def _may_pass(error: Exception) -> bool:
    return error.retryable if isinstance(error, ProviderError) else isinstance(error, Postponed)


def _wait_s(error: Exception) -> float | None:
    if isinstance(error, Postponed):
        return error.retry_in_s
    return error.retry_after_s if isinstance(error, ProviderError) else None
