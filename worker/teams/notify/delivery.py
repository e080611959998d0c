"""Tells receivers what has happened: at least once, whatever becomes of the gateway that noticed it.

One gateway of the fleet has the duty at a time; when it dies, another takes over within seconds. Nothing is asked for
again and again: the store tells what is new, and a timer runs to the next try that is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog

from queue_backends import QueueError, StateChange
from worker.background import BackgroundWork
from worker.definitions import Definitions
from worker.deliveries.deliveries import Deliveries
from worker.engine.lease import TTL_S, Duty
from worker.following import Following
from worker.net_guard import NetGuard
from worker.teams.notify.audience import Audience
from worker.teams.notify.links import NO_LINKS, Links
from worker.teams.notify.outbox import (
    DUE,
    EVENTS,
    HELLO,
    PREFIX,
    Happening,
    Message,
    MessageState,
    Outbox,
    message_id,
)
from worker.teams.notify.sending import Persistence, attempt, gave_up

RECONCILE_S: Final = 600.0
AT_ONCE: Final = 32
AT_ONCE_PER_HOST: Final = 4
RETRY_S: Final = 2.0

log = structlog.get_logger(__name__)


class NotifyDelivery(BackgroundWork):
    """Delivers, while it is entered and has the duty."""

    def __init__(
        self,
        outbox: Outbox,
        definitions: Definitions,
        guard: NetGuard,
        *,
        links: Links = NO_LINKS,
        duty_ttl_s: float = TTL_S,
        persistence: Persistence | None = None,
    ) -> None:
        duty = Duty(outbox.state, "notify/duty", ttl_s=duty_ttl_s)
        super().__init__(partial(duty.whenever_held, self._work), name="notifications")
        self._outbox = outbox
        self._audience = Audience(definitions)
        self._links = links
        self._http = guard.http()
        self._persistence = persistence or Persistence()
        self._happened: dict[str, Happening] = {}
        self._due: dict[str, Message] = {}
        self._deliveries = Deliveries(self._deliver, most=AT_ONCE, most_of_one=AT_ONCE_PER_HOST, what="notification")
        self._news = asyncio.Event()
        self._following = Following(
            outbox.state, PREFIX, HELLO, what="notifications", changed=self._heard, keep=self._keep_whole
        )

    async def stop(self) -> None:
        """Deliver no more; whoever has the duty next goes on."""
        await super().stop()
        await self._http.aclose()

    async def _work(self) -> None:
        """While the duty is ours."""
        self._happened.clear()
        self._due.clear()
        async with self._deliveries.going_on(), self._following:
            while True:
                await self._do_due()

    async def _keep_whole(self) -> None:
        await self._following.read_again_and_again(self._read_all, RECONCILE_S)

    async def _read_all(self) -> None:
        async for key, value in self._outbox.all():
            self._know(key, value)

    def _heard(self, change: StateChange) -> None:
        self._know(change.key, change.value)

    def _know(self, key: str, value: bytes | None) -> None:
        try:
            if key.startswith(DUE):
                self._know_message(key.removeprefix(DUE), msgspec.json.decode(value, type=Message) if value else None)
            elif key.startswith(EVENTS):
                happening = msgspec.json.decode(value, type=Happening) if value else None
                if happening is None or happening.is_over:
                    self._happened.pop(key.removeprefix(EVENTS), None)
                else:
                    self._happened[happening.id] = happening
        except msgspec.MsgspecError as error:  # a newer version wrote it, and will deliver it
            log.warning("a notification cannot be read", key=key, error=str(error))
        self._news.set()

    def _know_message(self, number: str, message: Message | None) -> None:
        if message is None:
            self._due.pop(number, None)
        elif (known := self._due.get(number)) is None or known.tries <= message.tries:
            self._due[number] = message

    async def _do_due(self) -> None:
        self._news.clear()
        again_at = math.inf
        for happening in tuple(self._happened.values()):
            try:
                await self._expand(happening)
            except QueueError:  # the store is away
                again_at = time.time() + RETRY_S
                break
            self._happened.pop(happening.id, None)
        now = time.time()
        for number, message in self._due.items():
            if number not in self._deliveries and (message.next_try_at or 0.0) <= now:
                self._deliveries.add(number, _host(message))
        waiting = [each for each in self._due.values() if each.id not in self._deliveries]
        moments = [each.next_try_at for each in waiting if each.next_try_at]
        await self._wait(min([again_at, *moments]) - now)

    async def _wait(self, limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(limit_s) else max(0.0, limit_s)):
                await self._news.wait()

    # From what has happened to messages

    async def _expand(self, happening: Happening) -> None:
        payload = msgspec.structs.replace(happening.payload, dashboard_url=self._links.of(happening.payload))
        for policy in self._audience.of(happening):
            if not await self._outbox.may_tell(happening, policy):
                log.info("a notification is held back by its rate limit", policy=policy.value.slug, id=happening.id)
                continue
            for index, channel in enumerate(policy.value.channels):
                message = Message(
                    id=message_id(happening, policy, index),
                    policy=policy.value.slug,
                    namespace=policy.value.namespace,
                    object_id=policy.id,
                    index=index,
                    channel=channel,
                    payload=payload,
                )
                await self._outbox.send(message)
                self._know_message(message.id, message)
        await self._outbox.settled(happening)

    # Messages

    async def _deliver(self, number: str) -> None:
        try:
            message = self._due.get(number)
            if message is not None:
                await self._deliver_one(message)
        finally:
            self._news.set()

    async def _deliver_one(self, message: Message) -> None:
        try:
            after = await attempt(message, self._http, self._persistence)
        except Exception:
            log.exception("a notification has failed", policy=message.policy, id=message.id)
            after = gave_up(message, "something went wrong in the gateway; its log has the reason")
        self._due[message.id] = after
        try:
            await self._outbox.keep(after)
        except QueueError as error:  # it is told again: a receiver knows it by its id
            log.warning("a notification's state cannot be kept", id=message.id, error=str(error))
            self._due[message.id] = msgspec.structs.replace(
                message, tries=after.tries, next_try_at=time.time() + RETRY_S
            )
            return
        if after.state is not MessageState.DUE:
            self._due.pop(message.id, None)
        write = log.warning if after.state is MessageState.DEAD else log.info
        write("notification", policy=after.policy, id=after.id, state=after.state.value, error=after.last_error)


def _host(message: Message) -> str:
    return message.channel.url_env or urlsplit(message.channel.url).netloc.lower()
