"""A large file into Cloud Storage as a resumable upload: part by part; after a fault, from where the store has got.

Source: https://cloud.google.com/storage/docs/performing-resumable-uploads.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Set

from msgspec.structs import replace

from providers.calls import Response
from worker.artifacts.errors import ArtifactsFailed, StoreAway
from worker.artifacts.files import LocalFile
from worker.artifacts.giving_up import take_back
from worker.artifacts.object_calls import TRIES, ObjectCall, ObjectCalls
from worker.artifacts.store import PART_BYTES

_MORE: Set[int] = frozenset({308})
"""Not yet the whole file."""
_GONE: Set[int] = frozenset({404, 410, 499})
"""What a session that is given up answers: 499."""
_HAS = re.compile(r"bytes=0-(\d+)")


def described(file: LocalFile, content_type: str) -> dict[str, str]:
    """The headers with which a session begins."""
    return {
        "x-upload-content-type": content_type,
        "x-upload-content-length": str(file.size),
        "content-type": "application/json",
    }


async def upload_in_parts(calls: ObjectCalls, begin: ObjectCall, file: LocalFile) -> None:
    """Raises `ArtifactsFailed`. What has come of the file is thrown away if it does not come whole."""
    beginning = asyncio.create_task(_begin(calls, begin), name=f"begin to {begin.what}")
    try:
        # Shielded: a session whose address nobody knows could not be taken back.
        await _Session(calls, await asyncio.shield(beginning), file).send()
    except BaseException:
        await take_back(lambda: _abort(calls, beginning), begin.what)
        raise


async def _begin(calls: ObjectCalls, begin: ObjectCall) -> ObjectCall:
    """A request to the session, which needs no token: its address is one."""
    answer = await calls.make(begin)
    address = answer.headers.get("location", "")
    if not address:
        raise ArtifactsFailed(f"cannot {begin.what}: the store takes no files in parts")
    return ObjectCall(method="PUT", url=address, what=begin.what)


async def _abort(calls: ObjectCalls, beginning: asyncio.Task[ObjectCall]) -> None:
    try:
        session = await beginning
    except ArtifactsFailed:
        return  # there is nothing
    await calls.make(replace(session, method="DELETE", answers=_GONE))


class _Session:
    """Sends a file, however often it is interrupted, as long as there is progress."""

    def __init__(self, calls: ObjectCalls, session: ObjectCall, file: LocalFile) -> None:
        self._calls = calls
        self._session = session
        self._file = file

    async def send(self) -> None:
        """The whole file. Raises `ArtifactsFailed`."""
        offset, failures = 0, 0
        while (answer := await self._sent_or_asked(offset, failures)).status in _MORE:
            there = _committed(answer)
            failures = 0 if there > offset else failures + 1
            if failures == TRIES:
                raise StoreAway(f"cannot {self._session.what}: no more than {there} bytes of it arrive")
            offset = there

    async def _sent_or_asked(self, offset: int, failures: int) -> Response:
        try:
            return await self._send_from(offset)
        except StoreAway:
            await self._calls.pause(failures + 1)
            return await self._asked()

    async def _send_from(self, offset: int) -> Response:
        size = self._file.size
        length = min(PART_BYTES, size - offset)
        body = await asyncio.to_thread(self._file.read, offset, length)
        # Only once: how much of a part has arrived is asked before it is repeated.
        return await self._put(body, f"bytes {offset}-{offset + length - 1}/{size}", tries=1)

    async def _asked(self) -> Response:
        """How far the store has got."""
        return await self._put(b"", f"bytes */{self._file.size}", tries=TRIES)

    async def _put(self, body: bytes, which: str, *, tries: int) -> Response:
        async def headers() -> dict[str, str]:
            return {"content-range": which}

        return await self._calls.make(replace(self._session, headers=headers, body=body, answers=_MORE, tries=tries))


def _committed(answer: Response) -> int:
    """How many bytes the store has."""
    found = _HAS.fullmatch(answer.headers.get("range", ""))
    return int(found[1]) + 1 if found else 0
