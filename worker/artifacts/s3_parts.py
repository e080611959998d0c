"""A large file into S3 as a multipart upload: part by part, each repeated by itself if it fails.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html: at most 10,000 parts, and all but the
last have at least 5 MiB.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from email.utils import parsedate_to_datetime
from html import unescape
from types import MappingProxyType
from typing import Protocol
from urllib.parse import quote
from xml.sax.saxutils import escape

from msgspec import Struct

from providers.calls import Response
from worker.artifacts.errors import ArtifactsFailed
from worker.artifacts.files import LocalFile
from worker.artifacts.giving_up import take_back
from worker.artifacts.store import PART_BYTES

MOST_PARTS = 10_000
_UPLOAD = re.compile(rb"<UploadId>([^<]{1,2000})</UploadId>")
_XML: Mapping[str, str] = MappingProxyType({"content-type": "application/xml"})
_NOT_THERE: Set[int] = frozenset({404})


class _Upload(Struct, frozen=True, kw_only=True):
    query: str
    what: str
    begun_at: datetime | None


class Ask(Protocol):
    """A signed request for the object, with this query."""

    async def __call__(
        self,
        method: str,
        query: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] = ...,
        answers: Set[int] = ...,
    ) -> Response:
        """Raises `ArtifactsFailed`."""
        ...


async def upload_in_parts(ask: Ask, file: LocalFile, content_type: str, what: str) -> None:
    """Raises `ArtifactsFailed`. What has come of the file is thrown away if it does not come whole."""
    beginning = asyncio.create_task(_begin(ask, content_type, what), name=f"begin to {what}")
    try:
        # Shielded: an upload whose id nobody knows could not be taken back.
        upload = await asyncio.shield(beginning)
        tags = [await _send(ask, upload, file, number, offset, size) for number, offset, size in _cuts(file.size)]
        await _complete(ask, upload, tags, file.size)
    except BaseException:
        await take_back(lambda: _abort(ask, beginning), what)
        raise


def _cuts(size: int) -> Sequence[tuple[int, int, int]]:
    """(number, offset, length) of each part."""
    length = max(PART_BYTES, -(-size // MOST_PARTS))
    return [(at // length + 1, at, min(length, size - at)) for at in range(0, size, length)]


async def _begin(ask: Ask, content_type: str, what: str) -> _Upload:
    answer = await ask("POST", "uploads=", headers={"content-type": content_type})
    found = _UPLOAD.search(answer.body)
    if found is None:
        raise ArtifactsFailed(f"cannot {what}: the store takes no files in parts")
    query = f"uploadId={quote(unescape(found[1].decode()), safe='-._~')}"
    return _Upload(query=query, what=what, begun_at=_moment(answer, "date"))


async def _send(ask: Ask, upload: _Upload, file: LocalFile, number: int, offset: int, length: int) -> str:
    body = await asyncio.to_thread(file.read, offset, length)
    answer = await ask("PUT", f"partNumber={number}&{upload.query}", body=body)
    return answer.headers.get("etag", "")


async def _complete(ask: Ask, upload: _Upload, tags: Sequence[str], size: int) -> None:
    """Put the parts together. An answer that was lost on its way is asked for again; by then the upload may be done,
    and unknown."""
    numbered = enumerate(map(escape, tags), 1)
    parts = [f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>" for number, tag in numbered]
    body = f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>".encode()
    answer = await ask("POST", upload.query, body=body, headers=_XML, answers=_NOT_THERE)
    if answer.status == 404 and await _is_there(ask, upload, size):
        return
    if answer.status == 404 or b"<Error>" in answer.body:  # a 200 may still be an error: S3 answers before it is done
        raise ArtifactsFailed(f"cannot {upload.what}: its parts could not be put together")


async def _is_there(ask: Ask, upload: _Upload, size: int) -> bool:
    """Whether the object has been written since the upload began. Times are the store's own, in whole seconds."""
    found = await ask("HEAD", "", answers=_NOT_THERE)
    written_at = _moment(found, "last-modified")
    is_new = upload.begun_at is not None and written_at is not None and written_at >= upload.begun_at
    return found.status == 200 and found.headers.get("content-length") == str(size) and is_new


def _moment(answer: Response, header: str) -> datetime | None:
    try:
        return parsedate_to_datetime(answer.headers.get(header, ""))
    except ValueError:
        return None


async def _abort(ask: Ask, beginning: asyncio.Task[_Upload]) -> None:
    """Twice, unless it is gone: a part that was on its way may have arrived after the first time."""
    try:
        upload = await beginning
    except ArtifactsFailed:
        return  # there is nothing
    for _ in range(2):
        answer = await ask("DELETE", upload.query, answers=_NOT_THERE)
        if answer.status == 404:
            return
