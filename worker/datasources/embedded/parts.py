"""A document's vectors and texts as values that every engine takes, and back. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from worker.datasources.errors import BadVectorStore
from worker.datasources.passages import NewPassage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

PART_BYTES = 192 * 1024
"""NATS takes values of up to 1 MiB, others more; smaller ones hold nobody up."""
_TEXT_PART_BYTES = 48 * 1024
"""A search reads one of these for each passage that it has found."""


class Text(NamedTuple):
    """The words of one passage."""

    content: str
    metadata: dict[str, str]


_texts = msgspec.json.Decoder(list[Text])


def unit_vectors(vectors: Sequence[Sequence[float]]) -> Vectors:
    """As rows of length 1; a row of zeros stays one. Raises `BadVectorStore` for what are no vectors of one length."""
    import numpy as np

    lengths = {len(vector) for vector in vectors}
    if len(lengths) != 1 or 0 in lengths:
        raise BadVectorStore(f"vectors of one length are needed, and these have {sorted(lengths)} numbers")
    rows = np.asarray(vectors, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise BadVectorStore("a vector holds a number that is not finite: the embedding model's answer is broken")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    units: Vectors = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return units


def vector_parts(rows: Vectors) -> Iterator[bytes]:
    """Little-endian 32-bit numbers, whole rows a part."""
    per_part = max(1, PART_BYTES // (4 * rows.shape[1]))
    for start in range(0, len(rows), per_part):
        yield rows[start : start + per_part].astype("<f4").tobytes()


def rows_of(parts: Sequence[bytes], dimensions: int) -> Vectors:
    """What `vector_parts` was given. Raises `ValueError` if they are not of these dimensions."""
    import numpy as np

    rows: Vectors = np.frombuffer(b"".join(parts), dtype="<f4").reshape(-1, dimensions).astype(np.float32, copy=False)
    return rows


def text_parts(passages: Sequence[NewPassage]) -> Iterator[tuple[int, bytes]]:
    """Each with the number of its first passage."""
    start, size = 0, 0
    for number, passage in enumerate(passages):
        if size and size + len(passage.content) > _TEXT_PART_BYTES:
            yield start, _encoded(passages[start:number])
            start, size = number, 0
        size += len(passage.content)
    if passages:
        yield start, _encoded(passages[start:])


def texts_of(part: bytes) -> list[Text]:
    """The passages of one part."""
    return _texts.decode(part)


def _encoded(passages: Sequence[NewPassage]) -> bytes:
    return msgspec.json.encode([Text(passage.content, dict(passage.metadata)) for passage in passages])
