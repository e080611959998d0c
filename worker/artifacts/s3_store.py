"""Artifacts in S3, or a server that speaks its API (MinIO, Ceph): `s3://bucket/prefix?region=…&endpoint=…`.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html and API_GetObject.html. The parameters of the
URL are kubeswarm's. Credentials come from the usual AWS chain.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from msgspec import Struct

from providers.aws_credentials import AwsAccess, AwsCredentials
from providers.aws_keys import AwsKeys
from providers.aws_sigv4 import Scope, signed_headers
from providers.transport import Transport
from worker.artifacts.object_calls import ObjectCall, ObjectCalls
from worker.artifacts.store import within


class S3Place(Struct, frozen=True, kw_only=True):
    """Where in S3."""

    bucket: str
    prefix: str = ""
    """Without slashes at its ends."""
    region: str
    endpoint: str = ""
    """Of another server: `http://minio:9000`. Empty: AWS's own."""

    @property
    def base(self) -> str:
        """With which all URLs of the store begin."""
        return f"s3://{self.bucket}/{self.prefix}/" if self.prefix else f"s3://{self.bucket}/"

    def address(self, url: str) -> str:
        """Where an object is reached. Other servers, and names with dots, which no certificate covers, have the bucket
        in the path."""
        path = quote(url.removeprefix(f"s3://{self.bucket}/"), safe="/-._~")
        if self.endpoint:
            return f"{self.endpoint.rstrip('/')}/{self.bucket}/{path}"
        domain = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        if "." in self.bucket:
            return f"https://s3.{self.region}.{domain}/{self.bucket}/{path}"
        return f"https://{self.bucket}.s3.{self.region}.{domain}/{path}"


class S3Store:
    """Signs each request. Files go up in one piece."""

    def __init__(
        self,
        place: S3Place,
        transport: Transport,
        *,
        timeout_s: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._place = place
        self._transport = transport
        self._calls = ObjectCalls(transport, timeout_s=timeout_s)
        self._credentials = AwsCredentials(transport)
        self._access = AwsAccess(region=place.region)
        self._now = now

    async def put(self, key: str, data: bytes, content_type: str) -> str:
        """Keep the content and return its `s3://` URL. Raises `ArtifactsFailed`."""
        url = self._place.base + key
        await self._calls.make(self._call("PUT", url, f"store {url}", data, {"content-type": content_type}))
        return url

    async def get(self, url: str, most_bytes: int) -> bytes:
        """The content. Raises `ArtifactsFailed`."""
        call = self._call("GET", url, f"read {url}", b"", {}, most_bytes=most_bytes)
        return await self._calls.make(call)

    def owns(self, url: str) -> bool:
        """Whether it is in the bucket, under the prefix."""
        return within(url, self._place.base)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    def _call(
        self, method: str, url: str, what: str, body: bytes, headers: Mapping[str, str], most_bytes: int = 0
    ) -> ObjectCall:
        address = self._place.address(url)

        async def signed() -> Mapping[str, str]:
            keys = await self._credentials.keys(self._access)
            # Hashing a large file takes many milliseconds.
            return await asyncio.to_thread(self._signed, keys, method, address, headers, body)

        return ObjectCall(method=method, url=address, what=what, headers=signed, body=body, most_bytes=most_bytes)

    def _signed(
        self, keys: AwsKeys, method: str, address: str, headers: Mapping[str, str], body: bytes
    ) -> dict[str, str]:
        scope = Scope(region=self._place.region, service="s3")
        hashed = {**headers, "x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
        return signed_headers(keys, scope, method, address, hashed, body, self._now())
