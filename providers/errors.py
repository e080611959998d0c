"""What can go wrong with a model call, as one tree. `retryable` says whether the same call may succeed later.

ProviderError
├── Unavailable (retryable)         the provider cannot be reached, or answers 5xx
│   ├── Overloaded                  it says that it has too much to do (529, 503, "overloaded")
│   ├── RateLimited                 429; `retry_after_s` if it said so
│   ├── ProviderTimeout             no connection, no answer or no next event within the limit
│   └── StreamBroken                the answer began and did not end; `usage` holds what was reported of it
├── BadResponse (retryable)         the answer cannot be read: HTML, broken JSON, an impossible event
├── InvalidRequest                  400, 404, 413, 422: this call will never succeed
│   └── ContextTooLong              the conversation does not fit into the model's window
├── AuthenticationFailed            401, 403, or no key at all: fix the set-up
├── Refused                         the model declined to answer
├── InvalidOutput                   the answer does not match the agent's output schema, asked for twice
├── LimitReached                    the run's own limit: turns, tokens, repeated calls, output cut at max_tokens
│   └── BudgetExceeded              tokens or money that this run, agent or tenant may not spend
└── UnknownProvider                 no provider of that name is registered
"""

from __future__ import annotations

from providers.vendor_limits import VendorLimits
from queue_backends import TokenUsage

PERMANENT_PREFIX = "permanent failure: "
"""ark: an error text that begins so is never retried."""


class ProviderError(Exception):
    """Root of everything a provider raises. `usage` is what the failed call is known to have used, `limits` what the
    vendor told of its rate limits, if anything."""

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
        usage: TokenUsage | None = None,
        limits: VendorLimits | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.status = status
        self.retry_after_s = retry_after_s
        self.usage = usage
        self.limits = limits


class Unavailable(ProviderError):
    """The provider cannot be reached or is failing; waiting helps."""

    retryable = True


class Overloaded(Unavailable):
    """The provider says that it has too much to do."""


class RateLimited(Unavailable):
    """The provider's rate limit was hit."""


class ProviderTimeout(Unavailable):
    """A time limit of the call ran out: connecting, the first answer, or the next event of a stream."""


class StreamBroken(Unavailable):
    """The stream ended before the answer did."""


class BadResponse(ProviderError):
    """The provider's answer is not what its protocol says."""

    retryable = True


class InvalidRequest(ProviderError):
    """The provider will never accept this call."""


class ContextTooLong(InvalidRequest):
    """The conversation is longer than the model's context window."""


class AuthenticationFailed(ProviderError):
    """The key is missing, wrong, or not allowed to do this."""


class Refused(ProviderError):
    """The model declined to answer for reasons of safety."""


class InvalidOutput(ProviderError):
    """The answer does not match the agent's output schema, and did not when the model was told what was wrong."""


class LimitReached(ProviderError):
    """A limit of this run was reached; the message names it."""


class BudgetExceeded(LimitReached):
    """No more may be spent here; the message says on what, how much, and when that changes."""


class UnknownProvider(ProviderError):
    """No provider of that name is registered."""
