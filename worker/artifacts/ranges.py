"""A file of an object store, read by ranges: no more of it is in memory than a part, and each part may be repeated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Protocol

from providers.calls import Response
from worker.artifacts.errors import ArtifactsFailed
from worker.artifacts.store import PART_BYTES, StoredFile, checked_size

_TOTAL = re.compile(r"bytes \d+-\d+/(\d+)")
_EMPTY: Set[int] = frozenset({416})
"""What an empty file answers: it has no first byte."""


class AskForRange(Protocol):
    """A GET of the object with these headers, if it is still the one of `version`."""

    async def __call__(
        self, version: str, *, headers: Mapping[str, str], answers: Set[int] = ..., most_bytes: int
    ) -> Response:
        """Raises `ArtifactsFailed`."""
        ...


async def open_by_ranges(ask: AskForRange, url: str, most_bytes: int, *, version_header: str) -> StoredFile:
    """The file, its first part read. Raises `ArtifactsFailed`, also if it has more than `most_bytes`."""
    first = await ask("", headers=_headers(0, PART_BYTES), answers=_EMPTY, most_bytes=PART_BYTES)
    if first.status in _EMPTY:
        return StoredFile(0, b"", _nothing)
    found = _TOTAL.fullmatch(first.headers.get("content-range", ""))
    size = checked_size(url, int(found[1]) if found else len(first.body), most_bytes)
    version = first.headers.get(version_header, "")

    async def read(offset: int, length: int) -> bytes:
        part = await ask(version, headers=_headers(offset, length), most_bytes=length)
        if len(part.body) != length:
            raise ArtifactsFailed(f"cannot read {url}: the store gave {len(part.body)} bytes instead of {length}")
        return part.body

    return StoredFile(size, first.body, read)


def _headers(offset: int, length: int) -> dict[str, str]:
    return {"range": f"bytes={offset}-{offset + length - 1}", "accept-encoding": "identity"}


async def _nothing(offset: int, length: int) -> bytes:
    raise ArtifactsFailed(f"there is nothing at {offset} of an empty file, {length} bytes were asked for")
