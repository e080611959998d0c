"""Tells receivers what has happened: at least once, whatever becomes of the gateway that noticed it.

One gateway of the fleet has the duty at a time; when it dies, another takes over within seconds. Nothing is asked for
again and again: the store tells what is new, and a timer runs to the next try that is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import msgspec
import structlog

from queue_backends import QueueError, StateChange
from worker.definitions import Definitions
from worker.engine.lease import TTL_S, Duty
from worker.following import Following
from worker.gateway.callback_line import CallbackLine
from worker.net_guard import NetGuard
from worker.objects import Stored
from worker.teams.notify.model import OF_BUDGETS, Notify
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
from worker.teams.notify.payload import NotifyPayload
from worker.teams.notify.sending import Persistence, attempt, gave_up

RECONCILE_S: Final = 600.0
AT_ONCE: Final = 32
AT_ONCE_PER_HOST: Final = 4
RETRY_S: Final = 2.0

log = structlog.get_logger(__name__)


class NotifyDelivery:
    """Delivers, while it is entered and has the duty."""

    def __init__(
        self,
        outbox: Outbox,
        definitions: Definitions,
        guard: NetGuard,
        *,
        duty_ttl_s: float = TTL_S,
        persistence: Persistence | None = None,
    ) -> None:
        self._outbox = outbox
        self._policies = definitions.notifies
        self._teams = definitions.teams
        self._http = guard.http()
        self._duty = Duty(outbox.state, "notify/duty", ttl_s=duty_ttl_s)
        self._persistence = persistence or Persistence()
        self._happened: dict[str, Happening] = {}
        self._due: dict[str, Message] = {}
        self._line = CallbackLine(most=AT_ONCE, most_of_one=AT_ONCE_PER_HOST)
        self._underway: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._following = Following(
            outbox.state, PREFIX, HELLO, what="notifications", changed=self._heard, keep=self._keep_whole
        )

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._duty.whenever_held(self._work), name="notifications")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await self._http.aclose()

    async def _work(self) -> None:
        """While the duty is ours."""
        self._happened.clear()
        self._due.clear()
        self._line = CallbackLine(most=AT_ONCE, most_of_one=AT_ONCE_PER_HOST)
        self._following.start()
        try:
            while True:
                await self._do_due()
        finally:
            await self._following.stop()
            underway, self._underway = self._underway, set()
            for task in underway:
                task.cancel()
            if underway:
                await asyncio.wait(underway)

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
            if number not in self._line and (message.next_try_at or 0.0) <= now:
                self._line.add(number, _host(message))
        self._begin_next()
        moments = [each.next_try_at for each in self._due.values() if each.id not in self._line and each.next_try_at]
        await self._wait(min([again_at, *moments]) - now)

    async def _wait(self, limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(limit_s) else max(0.0, limit_s)):
                await self._news.wait()

    # From what has happened to messages

    async def _expand(self, happening: Happening) -> None:
        for policy in self._wanting(happening):
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
                    payload=happening.payload,
                )
                await self._outbox.send(message)
                self._know_message(message.id, message)
        await self._outbox.settled(happening)

    def _wanting(self, happening: Happening) -> list[Stored[Notify]]:
        payload = happening.payload
        found: dict[int, Stored[Notify]] = {}
        if name := happening.policy or self._policy_of(payload):
            named = self._policies.visible(name, payload.namespace)
            if named is None:
                log.warning("there is no notification policy of that name", policy=name, team=payload.team)
            else:
                found[named.id] = named
        if happening.is_test:
            return list(found.values())
        for each in self._policies.all():
            if each.value.is_for_all and each.value.namespace in ("", payload.namespace):
                found.setdefault(each.id, each)
        return [
            each
            for each in found.values()
            if each.value.is_active and (not each.value.on or payload.event in each.value.on)
        ]

    def _policy_of(self, payload: NotifyPayload) -> str:
        """What the team names that a budget is about: who noticed knows its name alone."""
        stored = self._teams.visible(payload.team, payload.namespace) if payload.event in OF_BUDGETS else None
        return stored.value.plan.team.notify if stored is not None else ""

    # Messages

    def _begin_next(self) -> None:
        while (number := self._line.take()) is not None:
            task = asyncio.create_task(self._deliver(number), name=f"notification {number}")
            self._underway.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task in self._underway:  # otherwise the duty is no longer ours
            self._underway.discard(task)
            self._begin_next()
            self._news.set()

    async def _deliver(self, number: str) -> None:
        line = self._line
        try:
            message = self._due.get(number)
            if message is not None:
                await self._deliver_one(message)
        finally:
            line.leave(number)

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
