"""Artifacts in S3, or a server that speaks its API (MinIO, Ceph): `s3://bucket/prefix?region=…&endpoint=…`.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html and API_GetObject.html. The parameters of the
URL are kubeswarm's. Credentials come from the usual AWS chain.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Callable, Mapping, Set
from datetime import UTC, datetime
from urllib.parse import quote

from msgspec import Struct

from providers.aws_credentials import AwsAccess, AwsCredentials
from providers.aws_keys import AwsKeys
from providers.aws_sigv4 import Scope, signed_headers
from providers.calls import Response
from providers.transport import Transport
from worker.artifacts.files import LocalFile
from worker.artifacts.object_calls import ANSWER_BYTES, NONE, ObjectCall, ObjectCalls
from worker.artifacts.ranges import open_by_ranges
from worker.artifacts.s3_parts import upload_in_parts
from worker.artifacts.store import PART_BYTES, StoredFile, within


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
    """Signs each request. Large files go up in parts, and come down in parts."""

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

    async def put(self, key: str, file: LocalFile, content_type: str) -> str:
        """Keep the file and return its `s3://` URL. Raises `ArtifactsFailed`."""
        url = self._place.base + key
        what = f"store {url}"
        if file.size > PART_BYTES:
            await upload_in_parts(functools.partial(self._ask, url, what), file, content_type, what)
        else:
            body = await asyncio.to_thread(file.read, 0, file.size)
            await self._ask(url, what, "PUT", "", body=body, headers={"content-type": content_type})
        return url

    async def open(self, url: str, most_bytes: int) -> StoredFile:
        """The file, part by part. Raises `ArtifactsFailed`."""

        async def ask(
            version: str, *, headers: Mapping[str, str], answers: Set[int] = frozenset(), most_bytes: int
        ) -> Response:
            same = {**headers, "if-match": version} if version else headers
            return await self._ask(url, what, "GET", "", headers=same, answers=answers, most_bytes=most_bytes)

        what = f"read {url}"
        return await open_by_ranges(ask, url, most_bytes, version_header="etag")

    def owns(self, url: str) -> bool:
        """Whether it is in the bucket, under the prefix."""
        return within(url, self._place.base)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _ask(
        self,
        url: str,
        what: str,
        method: str,
        query: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] = NONE,
        answers: Set[int] = frozenset(),
        most_bytes: int = ANSWER_BYTES,
    ) -> Response:
        address = f"{self._place.address(url)}?{query}" if query else self._place.address(url)

        async def signed() -> Mapping[str, str]:
            keys = await self._credentials.keys(self._access)
            # Hashing a large part takes many milliseconds.
            return await asyncio.to_thread(self._signed, keys, method, address, headers, body)

        call = ObjectCall(
            method=method,
            url=address,
            what=what,
            headers=signed,
            body=body,
            answers=answers,
            most_bytes=most_bytes,
        )
        return await self._calls.make(call)

    def _signed(
        self, keys: AwsKeys, method: str, address: str, headers: Mapping[str, str], body: bytes
    ) -> dict[str, str]:
        scope = Scope(region=self._place.region, service="s3")
        hashed = {**headers, "x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
        return signed_headers(keys, scope, method, address, hashed, body, self._now())
