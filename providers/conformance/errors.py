"""Suite: refused requests and failing servers."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from providers.capabilities import Capability
from providers.conformance.support import Conformance, check, collect, needs, request_for
from providers.errors import (
    AuthenticationFailed,
    BadResponse,
    ContextTooLong,
    InvalidRequest,
    Overloaded,
    ProviderError,
    RateLimited,
    Unavailable,
)
from providers.replay_server import Reply, json_error

_ERRORS_BY_STATUS: Mapping[int, type[ProviderError]] = {
    400: InvalidRequest,
    401: AuthenticationFailed,
    403: AuthenticationFailed,
    404: InvalidRequest,
    413: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    500: Unavailable,
    502: Unavailable,
    503: Overloaded,
}


class ErrorConformance(Conformance):
    """Every failure is of the class that says what to do about it."""

    async def test_errors_by_status(self) -> None:
        """A refused request is the error that its status means, and says what the server said."""
        for status, kind in _ERRORS_BY_STATUS.items():
            error = await self.failure(self.error_reply(status))
            check(type(error) is kind, f"status {status} is {type(error).__name__}, not {kind.__name__}")
            check("the reason" in str(error), f"the message leaves out what the server said: {error}")
            check(error.status == status, f"the error's status is {error.status}, not {status}")
            check(error.provider == self.provider().name, f"the error's provider is {error.provider!r}")

    @needs(Capability.CONTEXT_ERROR)
    async def test_context_too_long(self) -> None:
        """A conversation that does not fit is `ContextTooLong` (hook `context_error`)."""
        check(self.context_error, "set `context_error`, or name it in `gaps`")
        if self.context_error:
            error = await self.failure(json_error(*self.context_error))
            check(type(error) is ContextTooLong, f"{type(error).__name__} instead of ContextTooLong: {error}")

    async def test_overloaded(self) -> None:
        """A server that has too much to do is `Overloaded`, in the vendor's own words (hook `overloaded_error`)."""
        error = await self.failure(json_error(*(self.overloaded_error or (503, self.error_body))))
        check(type(error) is Overloaded, f"{type(error).__name__} instead of Overloaded: {error}")

    async def test_error_page(self) -> None:
        """A proxy's page is an error too, and its text is readable."""
        page = b"<html><head><style>p{}</style></head><body><h1>502 Bad Gateway</h1></body></html>"
        error = await self.failure(Reply(status=502, frames=(page,), content_type="text/html"))
        check(type(error) is Unavailable and "Bad Gateway" in str(error), f"not understood: {error!r}")
        error = await self.failure(Reply(frames=(page,), content_type="text/html"))
        check(type(error) is BadResponse, f"a page instead of an answer is {type(error).__name__}")

    async def test_unreachable(self) -> None:
        """A server that is not there is `Unavailable`, with its address."""
        async with self.serving(self.whole("text")) as (_, provider, _):
            config = self.config("http://127.0.0.1:1")
            try:
                await collect(provider, request_for(config))
            except Unavailable as error:
                check("127.0.0.1:1" in str(error), f"the error does not say where: {error}")
            else:
                raise AssertionError("nothing listens there")

    async def test_retry_after_is_honoured(self) -> None:
        """A rate limit is waited for as long as the server says, and then the answer comes."""
        refused = self.error_reply(429)
        limited = msgspec.structs.replace(refused, headers={**refused.headers, "retry-after": "1"})
        async with self.serving(limited, self.whole("text")) as (server, provider, config):
            await self.expect("text", await collect(provider, request_for(config, max_retries=1)))
            waited_s = server.requests[1].at - server.requests[0].at
            check(waited_s >= 0.99, f"the second request came after {waited_s:.2f} s, the server had asked for 1 s")

    async def test_retry_after_is_reported(self) -> None:
        """A wait that is too long to sit out goes up with the error."""
        refused = self.error_reply(429)
        limited = msgspec.structs.replace(refused, headers={**refused.headers, "retry-after": "3600"})
        error = await self.failure(limited, max_retries=2)
        check(error.retry_after_s == 3600.0, f"retry_after_s is {error.retry_after_s}")

    async def test_secrets_in_errors(self) -> None:
        """A server that repeats the key in its refusal does not bring it into the error."""
        seen = await self.sent()
        secrets = {value.rpartition(" ")[2] for name, value in seen.headers.items() if name in _SECRET_HEADERS}
        for secret in secrets:
            body = self.error_body.replace(b"the reason", b"the key " + secret.encode() + b" is wrong")
            error = await self.failure(json_error(401, body))
            check(secret not in _everything(error), "the key is in the error")


_SECRET_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key"})


def _everything(error: ProviderError) -> str:
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        causes += [str(cause), repr(cause)]
        cause = cause.__cause__ or cause.__context__
    return "\n".join(causes)
