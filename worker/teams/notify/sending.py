"""One try to deliver a notification: where it goes, what is sent, and what follows from the answer."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from msgspec.structs import replace

from worker.deliveries.trying import Fate, Patience, Request, Tried, failed, tried
from worker.net_guard import GuardedHttp
from worker.teams.errors import TemplateError
from worker.teams.notify.messages import body_for
from worker.teams.notify.model import Channel
from worker.teams.notify.outbox import Message, MessageState
from worker.version import version

_STATES = {
    Fate.DELIVERED: MessageState.DELIVERED,
    Fate.AGAIN: MessageState.DUE,
    Fate.DEAD: MessageState.DEAD,
}


class NotSet(Exception):
    """An environment variable that a channel names is not set in this process."""


class Persistence(Patience, frozen=True, kw_only=True):
    """How long receivers of notifications are tried."""

    again_after_s: tuple[float, ...] = (2, 10, 60, 300, 1800, 7200)
    """After each failed try; about two and a half hours in all. Then the message is given up."""
    answer_within_s: float = 10.0


async def attempt(
    message: Message, http: GuardedHttp, persistence: Persistence, environ: Mapping[str, str] = os.environ
) -> Message:
    """Try once; the message as it stands then."""
    now = time.time()
    tries = message.tries + 1
    try:
        after = await tried(_request(message, int(now), environ), http, persistence, tries)
    except NotSet as error:  # another gateway may have it, or this one after its restart
        after = failed(str(error), persistence, tries)
    except TemplateError as error:
        after = Tried(fate=Fate.DEAD, error=str(error))
    return replace(
        message,
        state=_STATES[after.fate],
        tries=tries,
        last_tried_at=now,
        last_status=after.status,
        last_error=after.error,
        next_try_at=after.next_try_at,
    )


def _request(message: Message, now: int, environ: Mapping[str, str]) -> Request:
    """Raises `NotSet`, `TemplateError`."""
    channel = message.channel
    return Request(
        method=channel.method,
        url=address_of(channel, environ),
        url_is_secret=True,
        headers=_headers(message, now, environ),
        content=b"" if channel.method == "GET" else body_for(channel, message.payload),
    )


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
