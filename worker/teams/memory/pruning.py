"""What a vector memory forgets: what is too old, and the oldest of what is too much."""

from __future__ import annotations

from worker.datasources.passages import DocumentHead
from worker.teams.memory.vector_collections import VectorCollection

LOOK_EVERY_S = 300.0
"""So often a process deletes what is too old; before that it is not found any more."""
_SPARE = 20
"""Beyond its limit a memory gives up a twentieth more, so that not each new entry looks for the oldest."""
_PAGE = 500


async def prune(collection: VectorCollection, *, most: int, ttl_s: float, now: float) -> None:
    """Delete what is older than `ttl_s` (0: nothing is) at `now`, and the oldest of more than `most` entries."""
    store = collection.store
    is_due = ttl_s and now - collection.pruned_at > LOOK_EVERY_S
    surplus = (await store.size()).documents - most
    if surplus <= 0 and not is_due:
        return
    collection.pruned_at = now
    heads = await _heads(collection)
    heads.sort(key=lambda head: head.updated_at)
    if surplus > 0:
        surplus = len(heads) - most + most // _SPARE
    oldest = now - ttl_s if ttl_s else 0.0
    gone = [head.id for number, head in enumerate(heads) if number < surplus or head.updated_at < oldest]
    for start in range(0, len(gone), _PAGE):
        await store.delete(gone[start : start + _PAGE])


async def _heads(collection: VectorCollection) -> list[DocumentHead]:
    heads: list[DocumentHead] = []
    while page := await collection.store.documents(after=heads[-1].id if heads else "", limit=_PAGE):
        heads += page
    return heads
