"""Artifacts in Google Cloud Storage: `gs://bucket/prefix`, or `gcs://…`.

Source: https://cloud.google.com/storage/docs/json_api/v1/objects/insert (media upload) and …/objects/get. Credentials:
the application default ones, as for Vertex AI.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from msgspec import Struct

from providers import AgentConfig
from providers.google_auth import GoogleAuth
from providers.google_credentials import Source, find_source
from providers.transport import Transport
from worker.artifacts.object_calls import ObjectCall, ObjectCalls
from worker.artifacts.store import within

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
    """Asks with an access token. Files go up in one piece."""

    def __init__(self, place: GsPlace, transport: Transport, *, timeout_s: float) -> None:
        self._place = place
        self._transport = transport
        self._calls = ObjectCalls(transport, timeout_s=timeout_s)
        self._auth = GoogleAuth(transport, "gs")

    async def put(self, key: str, data: bytes, content_type: str) -> str:
        """Keep the content and return its `gs://` URL. Raises `ArtifactsFailed`."""
        url = self._place.base + key
        where = f"upload/storage/v1/b/{self._place.bucket}/o?uploadType=media&name={self._object(url)}"
        await self._calls.make(self._call("POST", where, f"store {url}", data, {"content-type": content_type}))
        return url

    async def get(self, url: str, most_bytes: int) -> bytes:
        """The content. Raises `ArtifactsFailed`."""
        where = f"storage/v1/b/{self._place.bucket}/o/{self._object(url)}?alt=media"
        return await self._calls.make(self._call("GET", where, f"read {url}", b"", {}, most_bytes=most_bytes))

    def owns(self, url: str) -> bool:
        """Whether it is in the bucket, under the prefix."""
        return within(url, self._place.base)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    def _object(self, url: str) -> str:
        return quote(url.removeprefix(f"gs://{self._place.bucket}/"), safe="")

    def _call(
        self, method: str, where: str, what: str, body: bytes, headers: Mapping[str, str], most_bytes: int = 0
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
            refused=lambda: self._auth.forget(*used[-1]),
            most_bytes=most_bytes,
        )
