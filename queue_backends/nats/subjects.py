"""Every subject of a queue. One stream holds them all, so that one batch can change several in one step.

| subject, under the queue's name | holds | goes when |
|---|---|---|
| `tasks.<lane>.<task>` | a task that waits or runs, as an engine submitted it | it ended |
| `later.<task>` | a task that waits for a moment | it is due |
| `a.task.<task>` | who owns a task, then how it ended | after the results' retention |
| `a.chunk.<task>.<seq>` | chunks, the first one's `seq` in the subject | capped; some time after the final one |
| `a.kv.<key>` | a key of the state store | at the end of its lifetime |
| `k.log.<log>.<id>` | a record | at the end of its lifetime |
| `k.sum.<set>.<field>.<shard>` | a part of a counter | at the end of its lifetime |
| `k.win.<window>.<member>` | an amount in a rolling window | when the window has passed |
| `k.idem.<hash>` | the task of an idempotency key | after its retention |
| `k.dead.<letter>` | a dead letter | capped |
| `k.reap.<task>` | that a task's chunks shall go | then |
| `k.beat.<worker>` | which leases a worker has just renewed | after two leases |
| `k.depth` | a number that changes with each submit of a bounded queue | stays |

The server repeats what is stored under `a.` on the core subjects `live.`, for those who listen. `cancel` and
`resumed` are core subjects too. Each subject keeps its last message only.
"""

from __future__ import annotations

import hashlib
import re

from queue_backends.messages import Priority

FRONT, LANES = "front", (Priority.HIGH.value, Priority.NORMAL.value, Priority.LOW.value)
TASK_LANES = (FRONT, *LANES)
"""In the order of delivery. In front is what a worker gave back."""
LATER, DEAD = "later", "dead"
CONSUMERS = (LATER, *TASK_LANES, DEAD)
"""`dead` is never pulled from: it counts."""
LONGEST_TOKEN = 200
MOST_TOKENS = 8
_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")


def token(text: str) -> str:
    """Any text as one token of a subject; reads back with `untoken`."""
    return _UNSAFE.sub(lambda found: b"=%02X" % found[0][0], text.encode("utf-8", "surrogatepass")).decode()


def untoken(encoded: str) -> str:
    """The text of a token."""
    data = re.sub(rb"=([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), encoded.encode())
    return data.decode("utf-8", "surrogatepass")


def short_token(text: str) -> str:
    """A token that does not read back where it would be too long."""
    encoded = token(text)
    if len(encoded) <= LONGEST_TOKEN:
        return f"_{encoded}"
    return f"={hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def key_tokens(key: str) -> list[str]:
    """A key's parts, each up to and with a separator, as tokens: so that a prefix can be a subject."""
    parts = re.findall(r"[^:/]*[:/]|[^:/]+$", key)
    if len(parts) > MOST_TOKENS:
        parts[MOST_TOKENS - 1 :] = ["".join(parts[MOST_TOKENS - 1 :])]
    if not parts or (parts[-1][-1] in ":/" and len(parts) < MOST_TOKENS):
        parts.append("")
    return [short_token(part) for part in parts]


class Subjects:
    """The subjects of one queue, by what they hold."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.stream = token(queue)
        root = self.stream
        self.root = root
        self.announced, self.live = f"{root}.a.>", f"{root}.live.>"
        self.kept = [f"{root}.tasks.>", f"{root}.later.>", self.announced, f"{root}.k.>"]
        self.cancel, self.resumed = f"{root}.cancel", f"{root}.resumed"
        self.depth = f"{root}.k.depth"
        self.letters = f"{root}.k.dead.*"
        self.reaps = f"{root}.k.reap.*"
        self.all_tasks = f"{root}.a.task.*"
        self._live_prefix, self._stored_prefix = f"{root}.live.", f"{root}.a."

    def filter_of(self, consumer: str) -> str:
        """What a consumer sees."""
        if consumer == DEAD:
            return self.letters
        return f"{self.root}.later.*" if consumer == LATER else f"{self.root}.tasks.{consumer}.*"

    def lane(self, lane: str, task_id: str) -> str:
        """A task in a lane; `*` for the lane means all."""
        return f"{self.root}.tasks.{lane}.{task_id}"

    def later(self, task_id: str) -> str:
        """A task that waits for its moment."""
        return f"{self.root}.later.{task_id}"

    def task(self, task_id: str) -> str:
        """Who owns it, or how it ended."""
        return f"{self.root}.a.task.{task_id}"

    def chunks(self, task_id: str) -> str:
        """All chunks of a task."""
        return f"{self.root}.a.chunk.{task_id}.*"

    def chunk(self, task_id: str, first_seq: int) -> str:
        """Chunks that were written together."""
        return f"{self.root}.a.chunk.{task_id}.{first_seq}"

    def key(self, key: str) -> str:
        """A key of the state store."""
        return ".".join((self.root, "a.kv", *key_tokens(key)))

    def keys(self, prefix: str) -> str:
        """A filter that finds all keys with a prefix, and perhaps others."""
        whole = re.findall(r"[^:/]*[:/]", prefix)[: MOST_TOKENS - 1]
        return ".".join((self.root, "a.kv", *(short_token(part) for part in whole), ">"))

    def logs(self, log: str) -> str:
        """All records of a log."""
        return f"{self.root}.k.log.{short_token(log)}.*"

    def record(self, log: str, record_id: str) -> str:
        """One record."""
        return f"{self.root}.k.log.{short_token(log)}.{short_token(record_id)}"

    def counter(self, name: str, field: str, shard: str) -> str:
        """A part of a counter; `*` for field or shard means all."""
        return f"{self.root}.k.sum.{short_token(name)}.{field if field == '*' else short_token(field)}.{shard}"

    def window(self, name: str, member: str) -> str:
        """An amount in a window; `*` for all."""
        return f"{self.root}.k.win.{short_token(name)}.{member if member == '*' else short_token(member)}"

    def idempotency(self, key: str) -> str:
        """Which task a key stands for."""
        return f"{self.root}.k.idem.{hashlib.sha256(key.encode()).hexdigest()}"

    def letter(self, letter_id: str) -> str:
        """A dead letter."""
        return f"{self.root}.k.dead.{letter_id}"

    def reap(self, task_id: str) -> str:
        """That its chunks shall go."""
        return f"{self.root}.k.reap.{task_id}"

    def beat(self, worker: str) -> str:
        """A worker's renewals."""
        return f"{self.root}.k.beat.{short_token(worker)}"

    def live_of(self, subject: str) -> str:
        """Where what is stored under a subject is announced."""
        return self._live_prefix + subject.removeprefix(self._stored_prefix)


def is_token(text: str) -> bool:
    """Whether a text can stand in a subject as it is."""
    return bool(text) and len(text) <= LONGEST_TOKEN and text.isascii() and not re.search(r"[\s.*>\x00-\x1f\x7f]", text)
