"""One try to tell a receiver something, and what follows from the answer: told, again later, or given up."""

from __future__ import annotations

import enum
import random
import time
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from providers import ProviderError
from providers.calls import Response
from providers.retry import retry_after_s
from worker.log import mask_text
from worker.net_guard import AddressRefused, GuardedHttp

MOST_ANSWER_BYTES: Final = 256 * 1024
LONGEST_RETRY_AFTER_S: Final = 3600.0
_LONGEST_ERROR: Final = 300
_GONE: Final = 410


class Patience(Struct, frozen=True, kw_only=True):
    """How long receivers are waited for."""

    again_after_s: tuple[float, ...] = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 21_600, 28_800)
    """After each failed try; about 21 hours in all. Then it is given up."""
    answer_within_s: float = 15.0


class Fate(enum.Enum):
    """What has become of a delivery."""

    DELIVERED = "delivered"
    AGAIN = "again"
    DEAD = "dead"
    """It is tried no more."""


class Tried(Struct, frozen=True, kw_only=True):
    """A delivery after a try."""

    fate: Fate
    status: int | None = None
    """HTTP status of the answer."""
    error: str = ""
    next_try_at: float | None = None
    """Unix seconds."""


class Request(Struct, frozen=True, kw_only=True):
    """What is sent."""

    url: str
    headers: Mapping[str, str]
    content: bytes
    method: str = "POST"
    url_is_secret: bool = False
    """Whoever knows the address may write to it, as with Slack's: errors do not show it."""

    def __repr__(self) -> str:
        return f"<Request {self.method}, {len(self.content)} bytes>"


async def tried(request: Request, http: GuardedHttp, patience: Patience, tries: int) -> Tried:
    """Try for the `tries`-th time. Raises nothing but what is a fault of ours."""
    try:
        response = await http.request(
            request.method,
            request.url,
            headers=request.headers,
            content=request.content,
            timeout_s=patience.answer_within_s,
            max_body_bytes=MOST_ANSWER_BYTES,
        )
    except AddressRefused as error:
        return Tried(fate=Fate.DEAD, error=_said(error, request))
    except (ProviderError, OSError) as error:
        return failed(_said(error, request), patience, tries)
    return _answered(response, patience, tries)


def failed(why: str, patience: Patience, tries: int, *, status: int | None = None, not_before_s: float = 0.0) -> Tried:
    """After a failed try, the `tries`-th: again after a pause, unless it was the last one."""
    if tries > len(patience.again_after_s):
        return Tried(fate=Fate.DEAD, status=status, error=why)
    pause_s = patience.again_after_s[tries - 1] * random.uniform(0.9, 1.1)  # noqa: S311 - so that not all come at once
    wait_s = max(pause_s, min(not_before_s, LONGEST_RETRY_AFTER_S))
    return Tried(fate=Fate.AGAIN, status=status, error=why, next_try_at=time.time() + wait_s)


def _answered(response: Response, patience: Patience, tries: int) -> Tried:
    status = response.status
    if 200 <= status < 300:
        return Tried(fate=Fate.DELIVERED, status=status)
    if status == _GONE:
        return Tried(fate=Fate.DEAD, status=status, error="the receiver answered 410: it wants no more of these")
    hint = ": redirects are not followed" if 300 <= status < 400 else ""
    wait_s = retry_after_s(response.headers, time.time()) or 0.0
    return failed(f"the receiver answered {status}{hint}", patience, tries, status=status, not_before_s=wait_s)


def _said(error: Exception, request: Request) -> str:
    text = str(error).replace(request.url, "the address") if request.url_is_secret else str(error)
    return mask_text(text)[:_LONGEST_ERROR]
