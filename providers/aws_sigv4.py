"""AWS Signature Version 4: which headers prove who sends a request. Pure.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote, urlsplit

from msgspec import Struct

from providers.aws_keys import AwsKeys

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNSIGNED = frozenset({"authorization", "connection", "expect", "transfer-encoding", "user-agent", "x-amzn-trace-id"})
"""Proxies and clients may change these on the way."""


class Scope(Struct, frozen=True, kw_only=True):
    """What a signature is good for."""

    region: str
    service: str


def signed_headers(
    keys: AwsKeys, scope: Scope, method: str, url: str, headers: Mapping[str, str], body: bytes, now: datetime
) -> dict[str, str]:
    """The headers, with those that sign the request; `now` is in UTC. They are valid for five minutes.

    The path of `url` has to be encoded as it is sent, every part of it once.
    """
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    sent = {**headers, "x-amz-date": moment}
    if keys.session_token:
        sent["x-amz-security-token"] = keys.session_token
    to_sign = {name.lower(): " ".join(value.split()) for name, value in sent.items() if name.lower() not in _UNSIGNED}
    to_sign.setdefault("host", _host(url))
    names = ";".join(sorted(to_sign))
    request = canonical_request(method, url, to_sign, names, body, path_as_sent=scope.service == "s3")
    where = f"{moment[:8]}/{scope.region}/{scope.service}/aws4_request"
    text = "\n".join([_ALGORITHM, moment, where, hashlib.sha256(request.encode()).hexdigest()])
    signature = hmac.new(_signing_key(keys, moment[:8], scope), text.encode(), hashlib.sha256).hexdigest()
    sent["authorization"] = (
        f"{_ALGORITHM} Credential={keys.access_key_id}/{where}, SignedHeaders={names}, Signature={signature}"
    )
    return sent


def canonical_request(
    method: str, url: str, headers: Mapping[str, str], names: str, body: bytes, *, path_as_sent: bool = False
) -> str:
    """The one text that both sides make of a request; `headers` have lower-case names.

    What is sent encoded is encoded once more here, for every service but S3, whose keys mean what they say.
    """
    parts = urlsplit(url)
    path = parts.path if path_as_sent else quote(_without_dots(parts.path), safe="/~")
    lines = [f"{name}:{headers[name]}" for name in sorted(headers)]
    return "\n".join(
        [
            method.upper(),
            path,
            "&".join(f"{name}={value}" for name, value in sorted(_pairs(parts.query))),
            *lines,
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        ]
    )


def path_part(text: str) -> str:
    """One part of a path, with nothing left that separates: a model's id may have `:` and, as an ARN, `/`."""
    return quote(text, safe="-._~")


def _signing_key(keys: AwsKeys, day: str, scope: Scope) -> bytes:
    key = f"AWS4{keys.secret_access_key}".encode()
    for part in (day, scope.region, scope.service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _pairs(query: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (pair.partition("=") for pair in query.split("&") if pair)]


def _without_dots(path: str) -> str:
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if kept:
                kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    return "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")


def _host(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return host if parts.port in (None, default) else f"{host}:{parts.port}"
