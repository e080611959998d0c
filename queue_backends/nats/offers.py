"""What a consumer hands out: an entry of a lane, to be claimed, dropped, or put off."""

from __future__ import annotations

from nats.aio.msg import Msg

from queue_backends.nats.entries import Entry, entry_of
from queue_backends.nats.ledger import Stored
from queue_backends.nats.subjects import LATER


class Offer:
    """One entry, as JetStream delivered it."""

    __slots__ = ("ack_subject", "consumer", "deliveries", "entry", "stored", "task_id")

    def __init__(self, message: Msg) -> None:
        tokens = message.reply.split(".")
        offset = 2 if len(tokens) == 9 else 4
        self.ack_subject = message.reply
        self.consumer = tokens[offset + 1]
        self.deliveries = int(tokens[offset + 2])
        revision, at_ns = int(tokens[offset + 3]), int(tokens[offset + 5])
        self.stored = Stored(message.subject, revision, at_ns / 1e9, message.data, message.headers or {})
        self.task_id = self.stored.name
        self.entry: Entry = entry_of(self.stored)

    @property
    def is_delayed(self) -> bool:
        """It does not wait in a lane, but for its moment."""
        return self.consumer == LATER

    @property
    def may_be_known(self) -> bool:
        """Somebody may have had this task before."""
        return self.deliveries > 1 or self.entry.run > 0
