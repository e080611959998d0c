"""What is to be told, on its way: written down before anybody is told, and let go when all have been.

- `notify-outbox/event/<id>`: something has happened; which policies want to know is found out by whoever delivers.
- `notify-outbox/due/<id>`: a message to one channel, until it is delivered or given up.
- `notify-limits/<namespace>/<policy>/<tenant>/<team>/<event>`: what was let through last, for as long as nothing else
  is.
- The log `notify-history/<namespace>/<policy>`: what became of messages.

Ids follow from what has happened, so that telling it twice, after a crash, makes one message.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import AsyncIterator, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from queue_backends import LogRecord, StateStore
from queue_backends.messages import encode_json
from worker.objects import Stored
from worker.teams.notify.model import Channel, Notify
from worker.teams.notify.payload import NotifyPayload

PREFIX = "notify-outbox/"
EVENTS = f"{PREFIX}event/"
DUE = f"{PREFIX}due/"
HELLO = f"{PREFIX}~hello"
KEEP_S = 3 * 86_400.0
KEEP_HISTORY_S = 30 * 86_400.0


class Happening(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that policies may want to tell of."""

    id: str
    payload: NotifyPayload
    policy: str = ""
    """The one that the team names; empty: none. Those that are for all hear of it, too."""
    is_test: bool = False
    """For that policy alone, whatever events it tells of, and without a rate limit."""
    is_over: bool = False
    """Every message is on its way."""


class MessageState(enum.StrEnum):
    """How far a message has come."""

    DUE = "due"
    DELIVERED = "delivered"
    DEAD = "dead"
    """Given up."""


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A notification to one channel."""

    id: str
    """Its `webhook-id`, the same with each try."""
    policy: str
    namespace: str = ""
    object_id: int
    index: int
    """Of the channel, in its policy."""
    channel: Channel
    """As it was when this happened. It holds no secret but names of variables."""
    payload: NotifyPayload
    state: MessageState = MessageState.DUE
    tries: int = 0
    last_tried_at: float | None = None
    """Unix seconds, as the next one."""
    next_try_at: float | None = None
    last_status: int | None = None
    last_error: str = ""


class Outbox:
    """The outbox of the fleet. Every method may raise `BackendUnavailable`."""

    def __init__(self, state: StateStore) -> None:
        self.state = state

    async def put(self, happening: Happening) -> bool:
        """Something has happened, once: whether it is new."""
        return await self.state.compare_and_set(_event(happening.id), None, encode_json(happening), ttl_s=KEEP_S)

    async def settled(self, happening: Happening) -> None:
        """All messages of it are on their way; it is remembered for some time, in case it is told again."""
        done = replace(happening, is_over=True)
        await self.state.set(_event(happening.id), encode_json(done), ttl_s=KEEP_S)

    async def may_tell(self, happening: Happening, policy: Stored[Notify]) -> bool:
        """Whether the policy's rate limit lets this through. Asked again for the same, it says the same."""
        limit_s, payload = policy.value.rate_limit_s, happening.payload
        if not limit_s or happening.is_test:
            return True
        what = "/".join((policy.value.namespace, policy.value.slug, payload.namespace, payload.team, payload.event))
        key, mine = f"notify-limits/{what}", happening.id.encode()
        if await self.state.compare_and_set(key, None, mine, ttl_s=float(limit_s)):
            return True
        return await self.state.get(key) == mine

    async def send(self, message: Message) -> None:
        """Put a message in order, unless it is."""
        await self.state.compare_and_set(f"{DUE}{message.id}", None, encode_json(message), ttl_s=KEEP_S)

    async def keep(self, message: Message) -> None:
        """Store how far one has come."""
        key = f"{DUE}{message.id}"
        if message.state is MessageState.DUE:
            await self.state.set(key, encode_json(message), ttl_s=KEEP_S)
            return
        record = LogRecord(
            log=_history(message.namespace, message.policy),
            id=message.id,
            value=encode_json(message),
            keep_s=KEEP_HISTORY_S,
        )
        await self.state.append_once([record])
        await self.state.delete(key)

    async def all(self) -> AsyncIterator[tuple[str, bytes]]:
        """Everything in it, by key."""
        async for key, value in self.state.scan(PREFIX):
            if key != HELLO:
                yield key, value

    async def history(self, namespace: str, policy: str, *, limit: int = 100) -> Sequence[Message]:
        """What became of messages, the newest first."""
        entries = await self.state.read_log(_history(namespace, policy), limit=limit, newest_first=True)
        return [msgspec.json.decode(entry.value, type=Message) for entry in entries]


def message_id(happening: Happening, policy: Stored[Notify], index: int) -> str:
    """The same, whoever works it out."""
    told = "\0".join((happening.id, policy.value.namespace, policy.value.slug, str(policy.id), str(index)))
    return f"msg_{hashlib.sha256(told.encode()).hexdigest()[:24]}"


def happening_id(*what: str) -> str:
    """Of what has happened."""
    return hashlib.sha256("\0".join(what).encode()).hexdigest()[:32]


def _event(number: str) -> str:
    return f"{EVENTS}{number}"


def _history(namespace: str, policy: str) -> str:
    return f"notify-history/{namespace}/{policy}"
