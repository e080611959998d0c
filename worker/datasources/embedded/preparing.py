"""Documents as entries of the index and parts in the state store. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from worker.datasources.embedded.index import Entry, Place
from worker.datasources.embedded.parts import text_parts, unit_vectors, vector_parts
from worker.datasources.errors import BadVectorStore, StoreFull
from worker.datasources.passages import NewDocument

if TYPE_CHECKING:
    from worker.datasources.embedded.parts import Vectors

MOST_CONTENT_BYTES = 128 * 1024
MOST_METADATA_BYTES = 2048


class Prepared(NamedTuple):
    """A document, ready to be written."""

    entry: Entry
    parts: dict[str, bytes]
    """By their keys behind the collection's prefix."""


def _vectors(document: NewDocument) -> Vectors:
    import numpy as np

    if not document.passages:
        return np.zeros((0, 0), dtype=np.float32)
    return unit_vectors([passage.vector for passage in document.passages])


def all_prepared(token: str, documents: Sequence[NewDocument]) -> tuple[int, list[Prepared]]:
    """With the dimensions of their vectors. Raises `BadVectorStore`, `StoreFull`."""
    vectors = [_vectors(document) for document in documents]
    lengths = {rows.shape[1] for rows in vectors if len(rows)}
    if len(lengths) > 1:
        raise BadVectorStore(f"vectors of one length are needed, and these have {sorted(lengths)} numbers")
    prepared = [
        _prepared(token, number, document, rows)
        for number, (document, rows) in enumerate(zip(documents, vectors, strict=True))
    ]
    return next(iter(lengths), 0), prepared


def _prepared(token: str, number: int, document: NewDocument, rows: Vectors) -> Prepared:
    head = document.head
    _check_size(document)
    vectors = list(vector_parts(rows)) if len(rows) else []
    texts = list(text_parts(document.passages))
    place = Place(token, number, len(vectors), tuple(start for start, _ in texts))
    parts = {place.vectors(part): value for part, value in enumerate(vectors)}
    parts |= {place.texts(part): value for part, (_, value) in enumerate(texts)}
    return Prepared(Entry(head=head, place=place), parts)


def _check_size(document: NewDocument) -> None:
    head = document.head
    told = (head.id, head.title, *head.metadata, *head.metadata.values())
    size = sum(len(text.encode()) for text in told)
    if size > MOST_METADATA_BYTES:
        raise StoreFull(
            f"document {head.id[:100]!r} has {size} bytes of id, title and metadata; at most {MOST_METADATA_BYTES}"
        )
    longest = max((len(passage.content.encode()) for passage in document.passages), default=0)
    if longest > MOST_CONTENT_BYTES:
        raise StoreFull(f"document {head.id!r} has a passage of {longest} bytes; at most {MOST_CONTENT_BYTES}")
