"""The documents of one collection, as they are in the state store, mirrored as far as a process has read them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from queue_backends import StateStore
from worker.datasources.errors import BadVectorStore
from worker.datasources.passages import DocumentHead
from worker.shared_record import SharedRecord

A = TypeVar("A")
T = TypeVar("T")

BUCKETS = 128
_AT_ONCE = 8
ABANDONED_S = 3600.0
"""A write that has not ended after so long never will."""


class Place(Struct, frozen=True, array_like=True):
    """Where the parts of one document are."""

    token: str
    number: int
    vector_parts: int
    text_starts: tuple[int, ...]
    """The first passage of each part of its texts."""

    def all_keys(self) -> list[str]:
        """Of all parts, behind the collection's prefix."""
        return [self.vectors(n) for n in range(self.vector_parts)] + [
            self.texts(n) for n in range(len(self.text_starts))
        ]

    def vectors(self, part: int) -> str:
        """The key of a part of its vectors."""
        return f"p/{self.token}/{self.number}/v{part}"

    def texts(self, part: int) -> str:
        """The key of a part of its texts."""
        return f"p/{self.token}/{self.number}/t{part}"


class Entry(Struct, frozen=True, kw_only=True):
    """One document."""

    head: DocumentHead
    place: Place


class Bucket(Struct, frozen=True, kw_only=True):
    """Some of the documents, by their id."""

    documents: dict[str, Entry] = {}


class Intent(Struct, frozen=True, kw_only=True):
    """What a writer is about to do: its buckets count as changed until it is done."""

    buckets: tuple[int, ...]
    places: tuple[Place, ...] = ()
    """Of what it adds and of what it replaces: those that no document refers to go when it is done, or has died."""
    at: float


class Stamps(Struct, frozen=True, kw_only=True):
    """The state of a collection."""

    dimensions: int = 0
    """Of all its vectors; 0: not known yet."""
    buckets: dict[str, str] = {}
    """Bucket -> the token of the write that last changed it."""
    intents: dict[str, Intent] = {}
    """By the writer's token."""


class Index:
    """Reads and changes the documents of a collection. `documents` is what the last `refresh` has found."""

    def __init__(self, state: StateStore, prefix: str) -> None:
        self._state = state
        self._prefix = prefix
        self._stamps = SharedRecord(state, f"{prefix}stamps", Stamps)
        self._buckets: dict[int, dict[str, Entry]] = {}
        self._known: dict[int, str] = {}
        self._reading = asyncio.Lock()
        self.documents: dict[str, Entry] = {}
        self.dimensions = 0
        self.changes = 0
        """Goes up when `documents` changes."""

    @property
    def passages(self) -> int:
        """How many there are in all documents."""
        return sum(entry.head.passages for entry in self.documents.values())

    # Reading

    async def refresh(self) -> None:
        """Read what has changed; one read of one key if nothing has. Raises `BackendUnavailable`."""
        async with self._reading:
            stamps = await self._stamps.read()
            busy = {number for intent in stamps.intents.values() for number in intent.buckets}
            present = {int(number): token for number, token in stamps.buckets.items()}
            changed = {number for number, token in present.items() if self._known.get(number) != token}
            changed |= busy | (self._buckets.keys() - present.keys())
            found = dict(zip(changed, await gathered(self._read, changed), strict=True))
            self.dimensions = stamps.dimensions
            for number, documents in found.items():
                self._take(number, documents)
                if number in busy or number not in present:
                    self._known.pop(number, None)
                else:
                    self._known[number] = present[number]

    async def _read(self, number: int) -> dict[str, Entry]:
        return (await self._bucket(number).read()).documents

    def _take(self, number: int, documents: dict[str, Entry]) -> None:
        before = self._buckets.get(number, {})
        if before == documents:
            return
        self._buckets[number] = documents
        for gone in before.keys() - documents.keys():
            del self.documents[gone]
        self.documents.update(documents)
        self.changes += 1

    def _bucket(self, number: int) -> SharedRecord[Bucket]:
        return SharedRecord(self._state, f"{self._prefix}index/{number}", Bucket)

    # Writing

    async def announce(self, token: str, ids: Iterable[str], places: Sequence[Place] = (), dimensions: int = 0) -> None:
        """Say what is about to be done, before its first effect.

        Raises `BadVectorStore` if the collection's vectors have other dimensions, unless the last `refresh` found none.
        """
        is_empty = not self.documents
        ids = list(ids)
        before = (self.documents[each].place for each in ids if each in self.documents)
        buckets = tuple(sorted({bucket_of(each) for each in ids}))
        intent = Intent(buckets=buckets, places=(*places, *before), at=time.time())

        def change(stamps: Stamps) -> tuple[Stamps, dict[str, Intent]]:
            if not is_empty and dimensions and stamps.dimensions and dimensions != stamps.dimensions:
                raise BadVectorStore(wrong_dimensions(dimensions, stamps.dimensions))
            late = {name: each for name, each in stamps.intents.items() if intent.at - each.at > ABANDONED_S}
            intents = {**stamps.intents, token: intent}
            return replace(stamps, intents=intents, dimensions=dimensions or stamps.dimensions), late

        for abandoned, left in (await self._stamps.update(change)).items():
            await self._tidy(abandoned, left)

    async def commit(self, token: str, entries: Mapping[str, Entry | None]) -> int:
        """Add and replace documents (None: delete), delete the parts of those that went, and let everybody see it.
        Returns how many went."""
        by_bucket: dict[int, dict[str, Entry | None]] = {}
        for each, entry in entries.items():
            by_bucket.setdefault(bucket_of(each), {})[each] = entry
        gone: list[Entry] = []
        for number, changes in sorted(by_bucket.items()):
            gone += await self._bucket(number).update(_changing(changes))
        await self._delete_parts(entry.place for entry in gone)
        await self._settle(token, by_bucket)
        return len(gone)

    async def _settle(self, token: str, numbers: Iterable[int]) -> None:
        def change(stamps: Stamps) -> tuple[Stamps, None]:
            intents = {name: intent for name, intent in stamps.intents.items() if name != token}
            buckets = {**stamps.buckets, **{str(number): token for number in numbers}}
            return replace(stamps, intents=intents, buckets=buckets), None

        await self._stamps.update(change)

    async def _tidy(self, token: str, left: Intent) -> None:
        """Of a writer that died: what its documents refer to stays, the other parts go."""
        buckets = await gathered(self._read, left.buckets)
        used = {entry.place for documents in buckets for entry in documents.values()}
        await self._delete_parts(place for place in left.places if place not in used)
        await self._settle(token, left.buckets)

    async def _delete_parts(self, places: Iterable[Place]) -> None:
        keys = [self._prefix + key for place in places for key in place.all_keys()]
        await gathered(self._state.delete, keys)


def bucket_of(document_id: str) -> int:
    """Which bucket a document is in."""
    return hashlib.sha256(document_id.encode("utf-8", "surrogatepass")).digest()[0] % BUCKETS


def wrong_dimensions(given: int, present: int) -> str:
    """What is said of a vector of another length."""
    return (
        f"a vector has {given} numbers, and those that are stored have {present}: was the embedding model changed? "
        "Delete the data source's documents and ingest them anew"
    )


def _changing(changes: Mapping[str, Entry | None]) -> Callable[[Bucket], tuple[Bucket, list[Entry]]]:
    def change(bucket: Bucket) -> tuple[Bucket, list[Entry]]:
        gone = [bucket.documents[each] for each in changes if each in bucket.documents]
        left = {each: entry for each, entry in bucket.documents.items() if each not in changes}
        left.update({each: entry for each, entry in changes.items() if entry is not None})
        return Bucket(documents=left), gone

    return change


async def gathered(work: Callable[[A], Awaitable[T]], items: Iterable[A]) -> list[T]:
    """Do the work for all items, a few at once; the answers in order. Raises the first error."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(item: A) -> T:
        async with gate:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item), name="reading a vector store") for item in items]
    except BaseExceptionGroup as errors:
        raise _first_of(errors) from None
    return [task.result() for task in tasks]


def _first_of(errors: BaseException) -> BaseException:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors
