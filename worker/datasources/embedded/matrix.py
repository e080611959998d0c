"""Vectors of many documents in one block of memory, searched as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

_FIRST_ROWS = 256
IN_LOOP = 500_000
"""Numbers that are multiplied within the event loop: that takes well below a millisecond. More go to a thread."""


class Found(NamedTuple):
    """One row that was found."""

    document: str
    passage: int
    score: float


class Matrix:
    """Rows of unit length, several for each document. Not for use from several threads; a search that runs in a
    thread has taken all it needs before."""

    def __init__(self, dimensions: int) -> None:
        import numpy as np

        self.dimensions = dimensions
        self._rows: Vectors = np.zeros((_FIRST_ROWS, dimensions), dtype=np.float32)
        self._owner = np.full(_FIRST_ROWS, -1, dtype=np.int64)
        """Row -> number of its document; -1: of none any more."""
        self._passage = np.zeros(_FIRST_ROWS, dtype=np.int64)
        """Row -> number of its passage within the document."""
        self._used = 0
        self._gone = 0
        self._places: dict[str, tuple[int, int, int]] = {}
        """Document -> its number, first row and count of rows."""
        self._names: dict[int, str] = {}
        self._next = 0

    def __len__(self) -> int:
        return self._used - self._gone

    def put(self, document: str, vectors: Vectors) -> None:
        """Add a document's rows, or replace them. There has to be room: `reserve` it."""
        import numpy as np

        self.remove(document)
        count = len(vectors)
        number, self._next = self._next, self._next + 1
        start = self._used
        self._rows[start : start + count] = vectors
        self._owner[start : start + count] = number
        self._passage[start : start + count] = np.arange(count)
        self._places[document], self._names[number] = (number, start, count), document
        self._used += count

    def remove(self, document: str) -> None:
        """Take a document's rows out."""
        place = self._places.pop(document, None)
        if place is not None:
            number, start, count = place
            del self._names[number]
            self._owner[start : start + count] = -1
            self._gone += count

    async def reserve(self, count: int) -> None:
        """Make room for so many more rows, in a thread if much has to be moved. Searches that run go on with the old
        block; nothing may be put or removed meanwhile."""
        if self._used + count <= len(self._rows):
            return
        if self._used * self.dimensions > IN_LOOP:
            block = await asyncio.to_thread(_moved, self._rows, self._owner, self._passage, self._used, count)
        else:
            block = _moved(self._rows, self._owner, self._passage, self._used, count)
        self._rows, self._owner, self._passage, self._used = block
        self._gone = 0
        start = 0
        for document, (number, _, passages) in sorted(self._places.items(), key=lambda item: item[1][1]):
            self._places[document] = number, start, passages
            start += passages

    async def search(
        self, vector: Vectors, *, limit: int, threshold: float, documents: Iterable[str] | None
    ) -> list[Found]:
        """The best rows, the best first; of these documents only, or of all (None)."""
        import numpy as np

        rows, owner = self._rows[: self._used], self._owner[: self._used].copy()
        if documents is not None:
            numbers = [self._places[each][0] for each in documents if each in self._places]
            owner[~np.isin(owner, np.array(numbers, dtype=np.int64))] = -1
        passage = self._passage  # replaced, not changed, where these rows are concerned
        names = self._names
        if rows.size > IN_LOOP:
            names = dict(names)  # what is replaced meanwhile is found as it was
            best = await asyncio.to_thread(_best, rows, owner, vector, limit, threshold)
        else:
            best = _best(rows, owner, vector, limit, threshold)
        return [Found(names[int(owner[row])], int(passage[row]), score) for row, score in best]


def _moved(
    rows: Vectors, owner: NDArray[np.int64], passage: NDArray[np.int64], used: int, count: int
) -> tuple[Vectors, NDArray[np.int64], NDArray[np.int64], int]:
    """A larger block, without what is gone."""
    import numpy as np

    kept = np.flatnonzero(owner[:used] >= 0)
    size = max(len(kept) + count + (len(kept) + count) // 4, _FIRST_ROWS)
    new_rows = np.zeros((size, rows.shape[1]), dtype=np.float32)
    new_owner = np.full(size, -1, dtype=np.int64)
    new_passage = np.zeros(size, dtype=np.int64)
    np.take(rows, kept, axis=0, out=new_rows[: len(kept)])
    new_owner[: len(kept)], new_passage[: len(kept)] = owner[kept], passage[kept]
    return new_rows, new_owner, new_passage, len(kept)


def _best(
    rows: Vectors, owner: NDArray[np.int64], vector: Vectors, limit: int, threshold: float
) -> list[tuple[int, float]]:
    import numpy as np

    scores = rows @ vector
    scores[owner < 0] = -np.inf
    if threshold > 0:
        scores[scores < threshold] = -np.inf
    count = min(limit, len(scores))
    top = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(count)
    top = top[np.lexsort((top, -scores[top]))]
    return [(int(row), float(scores[row])) for row in top if np.isfinite(scores[row])]
