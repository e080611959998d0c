"""One try to deliver a notification: where it goes, what is sent, and what follows from the answer."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from providers import ProviderError
from providers.calls import Response
from providers.retry import retry_after_s
from worker.log import mask_text
from worker.net_guard import AddressRefused, GuardedHttp
from worker.teams.errors import TemplateError
from worker.teams.notify.messages import body_for
from worker.teams.notify.model import Channel
from worker.teams.notify.outbox import Message, MessageState
from worker.version import version

MOST_ANSWER_BYTES = 64 * 1024
LONGEST_RETRY_AFTER_S = 3600.0
_GONE = 410


class NotSet(Exception):
    """An environment variable that a channel names is not set in this process."""


class Persistence(Struct, frozen=True, kw_only=True):
    """How long receivers are tried."""

    again_after_s: tuple[float, ...] = (2, 10, 60, 300, 1800, 7200)
    """After each failed try; about two and a half hours in all. Then the message is given up."""
    answer_within_s: float = 10.0


async def attempt(
    message: Message, http: GuardedHttp, persistence: Persistence, environ: Mapping[str, str] = os.environ
) -> Message:
    """Try once; the message as it stands then."""
    now = time.time()
    tried = replace(message, tries=message.tries + 1, last_tried_at=now, last_status=None, last_error="")
    try:
        url = address_of(message.channel, environ)
        headers = _headers(message, int(now), environ)
        body = body_for(message.channel, message.payload)
    except NotSet as error:  # another gateway may have it, or this one after its restart
        return _failed(tried, persistence, str(error))
    except TemplateError as error:
        return gave_up(tried, str(error))
    try:
        response = await http.request(
            message.channel.method,
            url,
            headers=headers,
            content=b"" if message.channel.method == "GET" else body,
            timeout_s=persistence.answer_within_s,
            max_body_bytes=MOST_ANSWER_BYTES,
        )
    except AddressRefused as error:
        return gave_up(tried, _without(url, str(error)))
    except (ProviderError, OSError) as error:
        return _failed(tried, persistence, _without(url, str(error)))
    return _answered(tried, response, persistence)


def _answered(tried: Message, response: Response, persistence: Persistence) -> Message:
    tried = replace(tried, last_status=response.status)
    if 200 <= response.status < 300:
        return replace(tried, state=MessageState.DELIVERED, next_try_at=None)
    if response.status == _GONE:
        return gave_up(tried, "the receiver answered 410: it wants no more of these")
    hint = ": redirects are not followed" if 300 <= response.status < 400 else ""
    wait_s = retry_after_s(response.headers, time.time()) or 0.0
    return _failed(tried, persistence, f"the receiver answered {response.status}{hint}", wait_s)


def address_of(channel: Channel, environ: Mapping[str, str]) -> str:
    """Where it goes. Raises `NotSet`."""
    return _variable(environ, channel.url_env) if channel.url_env else channel.url


def _headers(message: Message, now: int, environ: Mapping[str, str]) -> dict[str, str]:
    headers = {"content-type": "application/json", "user-agent": f"shoal/{version()}"}
    for header in message.channel.headers:
        value = _variable(environ, header.value_env) if header.value_env else header.value
        headers[header.name.lower()] = value
    return {**headers, "webhook-id": message.id, "webhook-timestamp": str(now)}


def _variable(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "").strip()
    if not value:
        raise NotSet(f"environment variable {name} is not set in the gateway that delivers")
    return value


def gave_up(message: Message, why: str) -> Message:
    """The message as one that is not tried any more."""
    return replace(message, state=MessageState.DEAD, last_error=why, next_try_at=None)


def _failed(message: Message, persistence: Persistence, why: str, not_before_s: float = 0.0) -> Message:
    if message.tries > len(persistence.again_after_s):
        return gave_up(message, why)
    pause_s = persistence.again_after_s[message.tries - 1] * random.uniform(0.9, 1.1)  # noqa: S311 - not all at once
    wait_s = max(pause_s, min(not_before_s, LONGEST_RETRY_AFTER_S))
    return replace(message, last_error=why, next_try_at=time.time() + wait_s)


def _without(url: str, text: str) -> str:
    """An error's text without the address, which may be a secret: Slack's are."""
    return mask_text(text.replace(url, "the address"))[:300]
