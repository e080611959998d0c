"""What a role has worked on before, found by how near it is to what it is asked now."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from providers import ProviderError
from queue_backends import QueueError
from worker.datasources.embedding_call import Behalf
from worker.datasources.errors import VectorStoreError
from worker.datasources.passages import DocumentHead, NewDocument, NewPassage, Passage
from worker.teams.memory.findings import finding, preface
from worker.teams.memory.interfaces import MemoryUnavailable
from worker.teams.memory.pruning import prune
from worker.teams.memory.recollection import Recollection
from worker.teams.memory.shortening import shortened
from worker.teams.memory.vector_collections import VectorCollections
from worker.teams.memory.work import Work
from worker.teams.plan import MemorySpec

MOST_ENTRIES = 5_000
MOST_FOUND = 20
MOST_EMBEDDED_CHARS = 8_000
"""Of a prompt, and of an answer: embedding models read no more than about 8,000 tokens."""
_SPARE = 20
"""Passages that are looked at beyond those that are wanted."""
_LONGEST_ID = 400


class VectorMemory:
    """Shared by all roles that name its collection, within a tenant."""

    def __init__(self, spec: MemorySpec, collections: VectorCollections) -> None:
        self._spec = spec
        self._collections = collections
        self._max_entries = min(spec.max_entries or MOST_ENTRIES, MOST_ENTRIES)

    async def recall(self, work: Work) -> Recollection:
        """The nearest findings, the best first, before the prompt."""
        limit = min(max(self._spec.top_k, 0), MOST_FOUND)
        if not limit or not work.asked.strip():
            return Recollection()
        with _translated():
            async with self._collections.of(self._spec, work.task.tenant) as collection:
                asked = shortened(work.asked, MOST_EMBEDDED_CHARS)
                (vector,) = await collection.embed([asked], _behalf(work, "recall"))
                # Each entry has two passages; and some may be too old, or this work's own.
                found = await collection.store.search(
                    vector, limit=2 * limit + _SPARE, threshold=self._spec.min_similarity
                )
        return Recollection(preface=preface(self._chosen(found, work, limit)))

    def _chosen(self, found: Iterable[Passage], work: Work, limit: int) -> list[str]:
        oldest, own = self._oldest(time.time()), _document_id(work)
        chosen: dict[str, str] = {}
        for passage in found:
            document = passage.metadata.get("document", "")
            if document != own and float(passage.metadata.get("at", "0")) >= oldest and len(chosen) < limit:
                chosen.setdefault(document, passage.content)
        return list(chosen.values())

    async def keep(self, work: Work, answer: str) -> None:
        """Under the vector of what was asked, and that of what was answered."""
        asked = work.asked
        if not answer.strip() or not asked.strip():
            return
        with _translated():
            async with self._collections.of(self._spec, work.task.tenant) as collection:
                texts = [shortened(text, MOST_EMBEDDED_CHARS) for text in (asked, answer)]
                vectors = await collection.embed(texts, _behalf(work, "keep"))
                await collection.store.put([_document(work, finding(asked, answer), vectors)])
                await prune(collection, most=self._max_entries, ttl_s=self._spec.ttl_s, now=time.time())

    def _oldest(self, now: float) -> float:
        """What was kept before that is forgotten. Unix seconds."""
        return now - self._spec.ttl_s if self._spec.ttl_s else 0.0


def _behalf(work: Work, what: str) -> Behalf:
    task, marks = work.task, work.marks
    return Behalf(
        task_id=task.id,
        call_id=f"memory-{what}",
        agent=task.agent,
        tenant=task.tenant,
        session_id=task.session_id,
        team=marks.team,
        role=marks.role,
    )


def _document_id(work: Work) -> str:
    named = work.id.encode("utf-8", "replace")
    return work.id if len(named) <= _LONGEST_ID else hashlib.sha256(named).hexdigest()


def _document(work: Work, text: str, vectors: list[list[float]]) -> NewDocument:
    now, marks = time.time(), work.marks
    told = {"team": marks.team[:200], "role": marks.role[:200], "run": marks.run[:200], "at": f"{now:.3f}"}
    head = DocumentHead(
        id=_document_id(work),
        digest=hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(),
        metadata=told,
        passages=len(vectors),
        chars=len(text),
        updated_at=now,
    )
    told = {**told, "document": head.id}
    return NewDocument(
        head=head, passages=[NewPassage(content=text, vector=vector, metadata=told) for vector in vectors]
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ProviderError as error:
        raise MemoryUnavailable(f"no embedding: {error}") from error
    except (VectorStoreError, QueueError) as error:
        raise MemoryUnavailable(f"the memory's vector store: {error}") from error
