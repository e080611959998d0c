"""What tools have found, kept across tasks: told again before the results of calls that are like them."""

from __future__ import annotations

import hashlib
import time

from providers import ToolCall
from queue_backends import Task
from worker.datasources.embedding_call import Behalf
from worker.datasources.passages import DocumentHead, NewDocument, NewPassage
from worker.log import mask_text
from worker.loop_policy.model import LoopMemory
from worker.teams.marks import Marks
from worker.teams.memory.findings import preface
from worker.teams.memory.pruning import prune
from worker.teams.memory.shortening import shortened
from worker.teams.memory.vector import MOST_EMBEDDED_CHARS, MOST_ENTRIES, MOST_FOUND
from worker.teams.memory.vector_collections import VectorCollections
from worker.teams.plan import MemorySpec

_SPARE = 5


class Findings:
    """Of one run: what it is told, and what it adds. Both raise what the store and the embedding provider do, and
    `MemoryUnavailable`; the caller bounds the time."""

    def __init__(
        self,
        policy: LoopMemory,
        place: MemorySpec,
        collections: VectorCollections,
        task: Task,
        marks: Marks | None,
        *,
        attempt: int = 0,
        count: int,
    ) -> None:
        """`count` findings may have been kept by earlier deliveries; `attempt` tells their embeddings from ours."""
        self._policy = policy
        self._place = place
        self._collections = collections
        self._task = task
        self._marks = marks
        self._attempt = attempt
        self._count = count

    @property
    def where(self) -> str:
        """What may be slow: the store, and what makes its vectors."""
        place = self._place
        return f"{place.provider} {place.endpoint} {place.embed_provider} {place.embed_model}"

    async def recall(self, call: ToolCall) -> str:
        """What stands before the result of a call; empty if nothing like it is known."""
        limit = min(self._policy.most_found, MOST_FOUND)
        text = mask_text(shortened(f"tool:{call.name} args:{call.arguments or '{}'}", MOST_EMBEDDED_CHARS))
        async with self._collections.of(self._place, self._task.tenant) as collection:
            (vector,) = await collection.embed([text], self._behalf(f"recall-{call.id}"))
            # An entry may have several passages, where a role's memory shares the collection; and some may be too old.
            found = await collection.store.search(
                vector, limit=2 * limit + _SPARE, threshold=self._place.min_similarity
            )
        oldest = time.time() - self._place.ttl_s if self._place.ttl_s else 0.0
        texts = [each.content for each in found if float(each.metadata.get("at", "0")) >= oldest]
        return preface(list(dict.fromkeys(texts))[:limit])

    async def keep(self, call: ToolCall, text: str) -> None:
        """Add a finding, without what looks like a secret: others will read it, long after this task."""
        if not text.strip():
            return
        text = mask_text(text)
        self._count += 1
        number = self._count
        async with self._collections.of(self._place, self._task.tenant) as collection:
            embedded = shortened(text, MOST_EMBEDDED_CHARS)
            (vector,) = await collection.embed([embedded], self._behalf(f"keep-{call.id}"))
            await collection.store.put([self._document(call, text, vector, number)])
            await prune(
                collection,
                most=min(self._place.max_entries or MOST_ENTRIES, MOST_ENTRIES),
                ttl_s=self._place.ttl_s,
                now=time.time(),
            )

    def _document(self, call: ToolCall, text: str, vector: list[float], number: int) -> NewDocument:
        now = time.time()
        told = {
            "tool": call.name[:200],
            "task_id": self._task.id[:200],
            "step_idx": str(number),
            "agent": self._task.agent[:200],
            "at": f"{now:.3f}",
        }
        head = DocumentHead(
            id=f"{self._task.id}-{number}",
            digest=hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(),
            metadata=told,
            passages=1,
            chars=len(text),
            updated_at=now,
        )
        told = {**told, "document": head.id}
        return NewDocument(head=head, passages=[NewPassage(content=text, vector=vector, metadata=told)])

    def _behalf(self, call_id: str) -> Behalf:
        task, marks = self._task, self._marks
        return Behalf(
            task_id=task.id,
            call_id=f"loop-{self._attempt}-{call_id}",
            agent=task.agent,
            tenant=task.tenant,
            session_id=task.session_id,
            team="" if marks is None else marks.team,
            role="" if marks is None else marks.role,
        )
