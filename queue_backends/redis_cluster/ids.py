"""Names that are unique over all partitions, and those that one partition knows.

A partition's own id of a task is its stream's entry id, `1775325495123-0`, as ark reads it. Two partitions may give the
same one, so that outside it carries the partition's number: `1775325495123-0.3`. Letters are named in the same way, and
a delivery's token begins with the number. A queue of one partition adds nothing.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from msgspec import structs

from queue_backends.errors import QueueError
from queue_backends.interfaces import Delivery

_NUMBERED = re.compile(r"(.*)([.@])([0-9]{1,4})", re.DOTALL)
_TASK_ID = re.compile(r"(?<![0-9])[0-9]{10,19}-[0-9]{1,19}\.([0-9]{1,4})(?![0-9])")

_INNER_ID = re.compile(r"(?<![0-9])[0-9]{10,19}-[0-9]{1,19}(?![0-9.])")


class Place(NamedTuple):
    """Which partition, and the name there."""

    partition: int
    name: str


class Ids:
    """Both kinds of names, for a queue of so many partitions."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions

    def public(self, partition: int, name: str) -> str:
        """The name outside of what `partition` calls `name`."""
        if self.partitions == 1:
            return name
        if _is_entry_id(name):
            return f"{name}.{partition}"
        # A name that an engine chose for itself: found by its hash, or else marked.
        return name if self.place(name) == (partition, name) else f"{name}@{partition}"

    def place(self, public: str) -> Place:
        """Where something is. Ids of other engines' tasks, and nonsense, have a place too, always the same one."""
        if self.partitions > 1 and (found := _NUMBERED.fullmatch(public)):
            name, sign, partition = found[1], found[2], int(found[3])
            if partition < self.partitions and (sign == ".") == _is_entry_id(name):
                return Place(partition, name)
        return Place(self._hashed(public), public)

    def reworded(self, partition: int, message: object) -> str:
        """A partition's message, with ids as they are outside."""
        return _INNER_ID.sub(rf"\g<0>.{partition}", str(message)) if self.partitions > 1 else str(message)

    def of_key(self, key: str) -> int:
        """The partition that a key of state belongs to, or an idempotency key."""
        return self._hashed(key)

    def named_in(self, text: str) -> int | None:
        """The partition of the task whose id a text holds, such as `journal/1775325495123-0.3`; None without one."""
        if self.partitions == 1:
            return 0
        found = _TASK_ID.search(text)
        return int(found[1]) if found and int(found[1]) < self.partitions else None

    def outside(self, partition: int, delivery: Delivery) -> Delivery:
        """A partition's delivery as the worker has it."""
        if self.partitions == 1:
            return delivery
        task = structs.replace(delivery.task, id=self.public(partition, delivery.task.id))
        return structs.replace(delivery, task=task, token=f"{partition}.{delivery.token}")

    def inside(self, delivery: Delivery, *, stream_key: bool = True) -> Delivery:
        """A worker's delivery as its partition has it; without `stream_key`, its task names no list."""
        task = delivery.task
        drops_list = not stream_key and task.stream_key
        if self.partitions == 1:
            return structs.replace(delivery, task=structs.replace(task, stream_key="")) if drops_list else delivery
        _, _, token = delivery.token.partition(".")
        name = self.place(task.id).name
        inner = structs.replace(task, id=name, stream_key="") if drops_list else structs.replace(task, id=name)
        return structs.replace(delivery, task=inner, token=token)

    def partition_of(self, delivery: Delivery) -> int:
        """Whose delivery it is. Raises `QueueError` for a token of another backend."""
        if self.partitions == 1:
            return 0
        number, point, _ = delivery.token.partition(".")
        if not (point and number.isdigit() and int(number) < self.partitions):
            raise QueueError(
                f"delivery token {delivery.token!r} is not one of this backend: pass deliveries it returned"
            )
        return int(number)

    def _hashed(self, name: str) -> int:
        if self.partitions == 1:
            return 0
        digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.partitions


def _is_entry_id(name: str) -> bool:
    time_ms, dash, number = name.partition("-")
    return bool(dash) and time_ms.isdigit() and number.isdigit()
