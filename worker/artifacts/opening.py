"""From the URL of a store to the store."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from worker.artifacts.file_store import FileStore
from worker.artifacts.store import ArtifactStore
from worker.errors import BadSetting

SETTING = "artifacts.store_url (AGENT_ARTIFACT_STORE_URL)"


def open_store(url: str, *, timeout_s: float, setting: str = SETTING) -> ArtifactStore:
    """The store of a URL: `file:///folder`, `s3://bucket/prefix?region=…&endpoint=…`, `gs://bucket/prefix`.

    Nothing is connected to yet. `setting` is where the URL comes from. Raises `BadSetting`.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        folder = Path(unquote(parts.netloc + parts.path))
        if not folder.is_absolute():
            raise BadSetting(f"{setting} is {url!r}: give a whole path, such as file:///data/artifacts")
        return FileStore(folder)
    if parts.scheme not in ("s3", "gs", "gcs"):
        raise BadSetting(f"{setting} begins with {parts.scheme or url[:20]!r}: use file://, s3:// or gs://")
    if parts.username or parts.password:
        raise BadSetting(f"{setting} holds a user or a password: credentials come from the environment, as usual")
    bucket, prefix, given = parts.netloc, parts.path.strip("/"), dict(parse_qsl(parts.query))
    if not bucket:
        raise BadSetting(f"{setting} names no bucket: use {parts.scheme}://bucket/prefix")
    allowed = {"region", "endpoint"} if parts.scheme == "s3" else {"endpoint"}
    if unknown := given.keys() - allowed:
        raise BadSetting(f"{setting} has {', '.join(sorted(unknown))}: known are {', '.join(sorted(allowed))}")
    return _s3(bucket, prefix, given, timeout_s) if parts.scheme == "s3" else _gs(bucket, prefix, given, timeout_s)


def _s3(bucket: str, prefix: str, given: dict[str, str], timeout_s: float) -> ArtifactStore:
    from providers.transport import Transport  # takes 0.1 s to import, which a store of files does not need
    from worker.artifacts.s3_store import S3Place, S3Store

    variables = ("AWS_REGION", "AWS_DEFAULT_REGION"), ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    region, endpoint = (next((os.environ[name] for name in names if os.environ.get(name)), "") for names in variables)
    place = S3Place(
        bucket=bucket,
        prefix=prefix,
        region=given.get("region") or region or "us-east-1",
        endpoint=given.get("endpoint") or endpoint,
    )
    return S3Store(place, Transport(), timeout_s=timeout_s)


def _gs(bucket: str, prefix: str, given: dict[str, str], timeout_s: float) -> ArtifactStore:
    from providers.transport import Transport
    from worker.artifacts.gs_store import ENDPOINT, GsPlace, GsStore

    place = GsPlace(bucket=bucket, prefix=prefix, endpoint=given.get("endpoint") or ENDPOINT)
    return GsStore(place, Transport(), timeout_s=timeout_s)
