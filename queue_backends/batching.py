"""Writes of bounded size: many small things together, large ones apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from queue_backends.interfaces import Ack, Dead, Progress
from queue_backends.messages import ChunkDraft, Task, encode_json

T = TypeVar("T")

MOST_ITEMS = 250
MOST_CHARS = 4_000_000
"""One write holds up everybody else on the server, and travels as a whole: more than this goes in several."""


class Measured(list[T]):
    """What `batches` has cut: whoever cuts it once more gets it whole."""

    __slots__ = ()


def batches(items: Sequence[T], size_of: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """`items` in order, cut into batches of a bounded number and a bounded size; a large item goes alone."""
    if isinstance(items, Measured):
        yield items
        return
    if len(items) <= MOST_ITEMS and sum(map(size_of, items)) <= MOST_CHARS:  # nearly always
        if items:
            yield Measured(items)
        return
    start, size = 0, 0
    for position, item in enumerate(items):
        own = size_of(item)
        if position > start and (position - start == MOST_ITEMS or size + own > MOST_CHARS):
            yield Measured(items[start:position])
            start, size = position, 0
        size += own
    if start < len(items):
        yield Measured(items[start:])


def once_each(items: Sequence[T], key_of: Callable[[T], object]) -> Iterator[Sequence[T]]:
    """`items` in order, cut so that no part has the same key twice: the second write builds on the first."""
    if items and len({key_of(item) for item in items}) == len(items):
        yield items
        return
    start, seen = 0, set[object]()
    for position, item in enumerate(items):
        key = key_of(item)
        if key in seen:
            yield items[start:position]
            start, seen = position, set()
        seen.add(key)
    if start < len(items):
        yield items[start:]


def outcome_chars(outcome: Progress) -> int:
    """Roughly how much an outcome weighs on the wire."""
    chars = len(outcome.result.output) if type(outcome) is Ack or type(outcome) is Dead else 0
    for chunk in outcome.chunks:
        chars += len(chunk.content)
    for record in outcome.records:
        chars += len(record.value)
    return chars


def task_chars(task: Task) -> int:
    """Roughly how much a task weighs on the wire: its prompt, and all that may be long beside it."""
    chars = len(task.prompt)
    if task.meta:
        chars += sum(map(len, task.meta.values()))
    if task.history or task.overrides:
        chars += len(encode_json((task.history, task.overrides)))
    return chars


def chunk_chars(drafts: Sequence[ChunkDraft]) -> int:
    """Roughly how much chunks weigh on the wire."""
    return sum(len(draft.content) for draft in drafts)
