"""Requests to object stores: bounded, repeated while that may help, and errors in words."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Set
from types import MappingProxyType

from msgspec import Struct

from providers.calls import Response
from providers.errors import ProviderError, ProviderTimeout, Unavailable
from providers.transport import Transport
from worker.artifacts.errors import ArtifactsFailed, StoreAway

TRIES = 4
FIRST_WAIT_S = 0.2
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
ANSWER_BYTES = 1024 * 1024
"""Of answers that are no file."""
_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,60})</Code>|\"reason\":\s*\"([A-Za-z0-9]{1,60})\"")


NONE: Mapping[str, str] = MappingProxyType({})
"""No headers."""


async def no_headers() -> Mapping[str, str]:
    """For requests that need none."""
    return NONE


class ObjectCall(Struct, frozen=True, kw_only=True):
    """One request; repeating it does no harm, unless `tries` is 1."""

    method: str
    url: str
    what: str
    """What is done, for errors: `store s3://bucket/key`."""
    headers: Callable[[], Awaitable[Mapping[str, str]]] = no_headers
    """Made anew for each try: signatures age."""
    body: bytes = b""
    most_bytes: int = ANSWER_BYTES
    """Of the answer."""
    answers: Set[int] = frozenset()
    """Statuses beyond 2xx that are no errors."""
    tries: int = TRIES
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

    async def make(self, call: ObjectCall) -> Response:
        """The answer. Raises `ArtifactsFailed`, of which `StoreAway` says that it may do better later."""
        problem, has_new_credentials = "", False
        for done in range(call.tries):
            if done and not has_new_credentials:
                await self.pause(done)
            has_new_credentials = False
            try:
                answer = await self._once(call)
            except (Unavailable, ProviderTimeout) as error:
                problem = str(error)
                continue
            except ProviderError as error:  # there are no credentials, the address is none, the answer is too long
                raise ArtifactsFailed(f"cannot {call.what}: {error}") from error
            if answer.status < 300 or answer.status in call.answers:
                return answer
            problem = _problem(answer)
            has_new_credentials = answer.status == 401 and not done and call.refused()
            if answer.status not in _PASSING and not has_new_credentials:
                raise ArtifactsFailed(f"cannot {call.what}: {problem}")
        raise StoreAway(f"cannot {call.what}: {problem}")

    async def pause(self, failures: int) -> None:
        """Wait before another try, longer after each one that has failed."""
        await self._sleep(FIRST_WAIT_S * 2**failures)

    async def _once(self, call: ObjectCall) -> Response:
        return await self._transport.request(
            call.method,
            call.url,
            headers=await call.headers(),
            content=call.body,
            timeout_s=self._timeout_s,
            max_body_bytes=call.most_bytes,
        )


_ADVICE = {
    400: "check the region and the endpoint",
    401: "check the credentials",
    403: "check the credentials and what they may do",
    404: "there is no such bucket, or no such object",
    412: "it was replaced meanwhile",
}


def _problem(answer: Response) -> str:
    """The vendor's code, never its text: that may quote what was sent."""
    found = _CODE.search(answer.body)
    code = (found[1] or found[2]).decode() if found else ""
    if 300 <= answer.status < 400:
        return f"HTTP {answer.status} {code}".strip() + ": the bucket is in another region, or elsewhere"
    advice = _ADVICE.get(answer.status, "")
    return f"HTTP {answer.status} {code}".strip() + (f": {advice}" if advice else "")
