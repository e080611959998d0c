"""Requests to object stores: bounded, repeated while that may help, and errors in words."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct

from providers.calls import Response
from providers.errors import BadResponse, ProviderError, ProviderTimeout, Unavailable
from providers.transport import Transport
from worker.artifacts.errors import ArtifactsFailed

_TRIES = 4
_FIRST_WAIT_S = 0.2
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_ANSWER_BYTES = 1024 * 1024
"""Of answers that are no file."""
_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,60})</Code>|\"reason\":\s*\"([A-Za-z0-9]{1,60})\"")


class ObjectCall(Struct, frozen=True, kw_only=True):
    """One request; repeating it does no harm."""

    method: str
    url: str
    what: str
    """What is done, for errors: `store s3://bucket/key`."""
    headers: Callable[[], Awaitable[Mapping[str, str]]]
    """Made anew for each try: signatures age."""
    body: bytes = b""
    most_bytes: int = 0
    """Of the answer; 0: it is no file."""
    refused: Callable[[], bool] = lambda: False
    """Told of a 401; says whether other credentials may do better."""


class ObjectCalls:
    """Makes them, each try within `timeout_s`."""

    def __init__(
        self,
        transport: Transport,
        *,
        timeout_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._transport = transport
        self._timeout_s = timeout_s
        self._sleep = sleep

    async def make(self, call: ObjectCall) -> bytes:
        """The body of a 2xx answer. Raises `ArtifactsFailed`."""
        problem, has_new_credentials = "", False
        for done in range(_TRIES):
            if done and not has_new_credentials:
                await self._sleep(_FIRST_WAIT_S * 2**done)
            has_new_credentials = False
            try:
                answer = await self._once(call)
            except (Unavailable, ProviderTimeout) as error:
                problem = str(error)
                continue
            except BadResponse as error:
                raise ArtifactsFailed(f"cannot {call.what}: {error}") from error
            except ProviderError as error:  # there are no credentials, or the address is none
                raise ArtifactsFailed(f"cannot {call.what}: {error}") from error
            if answer.status < 300:
                return answer.body
            problem = _problem(answer)
            has_new_credentials = answer.status == 401 and not done and call.refused()
            if answer.status not in _PASSING and not has_new_credentials:
                break
        raise ArtifactsFailed(f"cannot {call.what}: {problem}")

    async def _once(self, call: ObjectCall) -> Response:
        return await self._transport.request(
            call.method,
            call.url,
            headers=await call.headers(),
            content=call.body,
            timeout_s=self._timeout_s,
            max_body_bytes=call.most_bytes or _ANSWER_BYTES,
        )


_ADVICE = {
    400: "check the region and the endpoint",
    401: "check the credentials",
    403: "check the credentials and what they may do",
    404: "there is no such bucket, or no such object",
}


def _problem(answer: Response) -> str:
    """The vendor's code, never its text: that may quote what was sent."""
    found = _CODE.search(answer.body)
    code = (found[1] or found[2]).decode() if found else ""
    if 300 <= answer.status < 400:
        return f"HTTP {answer.status} {code}".strip() + ": the bucket is in another region, or elsewhere"
    advice = _ADVICE.get(answer.status, "")
    return f"HTTP {answer.status} {code}".strip() + (f": {advice}" if advice else "")
