"""Documents and passages as points of Qdrant, and back; and the filters that choose among them. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from queue_backends.messages import encode_json
from worker.datasources.passages import DocumentHead, NewDocument, Passage

if TYPE_CHECKING:
    from qdrant_client.models import Filter, PointStruct

_NAMESPACE = uuid.UUID("6d9f2f3a-54cf-4c0a-9a0f-0d4b6f1f2b77")


def head_id(document: str) -> str:
    """Of a document's point: always the same, so that writing it again replaces it."""
    return str(uuid.uuid5(_NAMESPACE, document))


def head_point(head: DocumentHead, edition: str) -> PointStruct:
    """A document. Nobody searches these by their vectors, which a point has to have."""
    from qdrant_client.models import PointStruct

    payload = {**msgspec.to_builtins(head), "edition": edition}
    return PointStruct(id=head_id(head.id), vector=[1.0], payload=payload)


def head_of(payload: Mapping[str, Any] | None) -> DocumentHead:
    """What `head_point` was given. Raises `msgspec.ValidationError`."""
    return msgspec.convert({**(payload or {})}, DocumentHead)


def passage_points(document: NewDocument, edition: str, made_at: float) -> list[PointStruct]:
    """A document's passages, as this edition of it."""
    from qdrant_client.models import PointStruct

    about = {
        "document": document.head.id,
        "tags": [_tag(*each) for each in document.head.metadata.items()],
        "edition": edition,
        "made_at": made_at,
    }
    return [
        PointStruct(
            id=str(uuid.uuid5(_NAMESPACE, f"{edition}/{number}")),
            vector=list(passage.vector),
            payload={**about, "content": passage.content, "metadata": dict(passage.metadata)},
        )
        for number, passage in enumerate(document.passages)
    ]


def passage_of(payload: Mapping[str, Any], score: float) -> Passage:
    """A passage that was found."""
    return Passage(content=payload["content"], metadata=dict(payload["metadata"]), score=round(score, 6))


def of_documents(ids: Iterable[str] | None, metadata: Mapping[str, str]) -> Filter | None:
    """Passages of these documents (None: of any) that have all of this metadata. None chooses everything."""
    from qdrant_client.models import FieldCondition, Filter, MatchAny, MatchValue

    must = [FieldCondition(key="tags", match=MatchValue(value=_tag(*each))) for each in metadata.items()]
    if ids is not None:
        must.append(FieldCondition(key="document", match=MatchAny(any=list(ids))))
    return Filter(must=[*must]) if must else None


def of_editions(editions: Sequence[str]) -> Filter:
    """Passages that were written as one of these."""
    from qdrant_client.models import FieldCondition, Filter, MatchAny

    return Filter(must=[FieldCondition(key="edition", match=MatchAny(any=list(editions)))])


def left_over(ids: Sequence[str], editions: Sequence[str], before: float) -> Filter:
    """Passages of these documents that are of no such edition, and older than that: writers that died left them."""
    from qdrant_client.models import FieldCondition, Filter, MatchAny, Range

    return Filter(
        must=[
            FieldCondition(key="document", match=MatchAny(any=list(ids))),
            FieldCondition(key="made_at", range=Range(lt=before)),
        ],
        must_not=[of_editions(editions)] if editions else None,
    )


def either(*filters: Filter) -> Filter:
    """What any of them chooses."""
    from qdrant_client.models import Filter

    return Filter(should=[*filters])


def _tag(name: str, value: str) -> str:
    """Name and value as one keyword: names with dots in them would be paths."""
    return encode_json([name, value]).decode()
