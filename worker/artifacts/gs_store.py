"""Artifacts in Google Cloud Storage: `gs://bucket/prefix`, or `gcs://…`.

Source: https://cloud.google.com/storage/docs/json_api/v1/objects/insert and …/objects/get. Credentials: the application
default ones, as for Vertex AI.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set
from urllib.parse import quote

from msgspec import Struct

from providers import AgentConfig
from providers.calls import Response
from providers.google_auth import GoogleAuth
from providers.google_credentials import Source, find_source
from providers.transport import Transport
from worker.artifacts.files import LocalFile
from worker.artifacts.gs_parts import described, upload_in_parts
from worker.artifacts.object_calls import ANSWER_BYTES, NONE, ObjectCall, ObjectCalls
from worker.artifacts.ranges import open_by_ranges
from worker.artifacts.store import PART_BYTES, StoredFile, within

ENDPOINT = "https://storage.googleapis.com"


class GsPlace(Struct, frozen=True, kw_only=True):
    """Where in Cloud Storage."""

    bucket: str
    prefix: str = ""
    """Without slashes at its ends."""
    endpoint: str = ENDPOINT

    @property
    def base(self) -> str:
        """With which all URLs of the store begin."""
        return f"gs://{self.bucket}/{self.prefix}/" if self.prefix else f"gs://{self.bucket}/"


class GsStore:
    """Asks with an access token. Large files go up in parts, and come down in parts."""

    def __init__(self, place: GsPlace, transport: Transport, *, timeout_s: float) -> None:
        self._place = place
        self._transport = transport
        self._calls = ObjectCalls(transport, timeout_s=timeout_s)
        self._auth = GoogleAuth(transport, "gs")

    async def put(self, key: str, file: LocalFile, content_type: str) -> str:
        """Keep the file and return its `gs://` URL. Raises `ArtifactsFailed`."""
        url = self._place.base + key
        what, where = f"store {url}", f"upload/storage/v1/b/{self._place.bucket}/o?name={self._object(url)}"
        if file.size > PART_BYTES:
            begin = self._call("POST", f"{where}&uploadType=resumable", what, headers=described(file, content_type))
            await upload_in_parts(self._calls, begin, file)
        else:
            body = await asyncio.to_thread(file.read, 0, file.size)
            headers = {"content-type": content_type}
            await self._calls.make(self._call("POST", f"{where}&uploadType=media", what, body=body, headers=headers))
        return url

    async def open(self, url: str, most_bytes: int) -> StoredFile:
        """The file, part by part. Raises `ArtifactsFailed`."""
        where, what = f"storage/v1/b/{self._place.bucket}/o/{self._object(url)}?alt=media", f"read {url}"

        async def ask(
            version: str, *, headers: Mapping[str, str], answers: Set[int] = frozenset(), most_bytes: int
        ) -> Response:
            same = f"{where}&ifGenerationMatch={version}" if version else where
            call = self._call("GET", same, what, headers=headers, answers=answers, most_bytes=most_bytes)
            return await self._calls.make(call)

        return await open_by_ranges(ask, url, most_bytes, version_header="x-goog-generation")

    def owns(self, url: str) -> bool:
        """Whether it is in the bucket, under the prefix."""
        return within(url, self._place.base)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    def _object(self, url: str) -> str:
        return quote(url.removeprefix(f"gs://{self._place.bucket}/"), safe="")

    def _call(
        self,
        method: str,
        where: str,
        what: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] = NONE,
        answers: Set[int] = frozenset(),
        most_bytes: int = ANSWER_BYTES,
    ) -> ObjectCall:
        used: list[tuple[Source, str]] = []

        async def with_token() -> Mapping[str, str]:
            source = find_source(AgentConfig(model=""), lambda _: "", has_project=True)
            token = await self._auth.token(source)
            used.append((source, token))
            return {**headers, "authorization": f"Bearer {token}"}

        return ObjectCall(
            method=method,
            url=f"{self._place.endpoint.rstrip('/')}/{where}",
            what=what,
            headers=with_token,
            body=body,
            answers=answers,
            refused=lambda: self._auth.forget(*used[-1]),
            most_bytes=most_bytes,
        )
