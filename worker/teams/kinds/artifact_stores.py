"""`artifactStore` of a team -> a folder, or the URL of a store, as kubeswarm's operator makes it."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from worker.teams.kinds.findings import Findings
from worker.teams.kinds.objects import Fields

_SCHEMES = {"s3": "s3", "gcs": "gs"}


def folder_of(spec: Fields) -> str:
    """Of a store of the type `local`; empty: another one."""
    return spec.one("local").text("path") if spec.text("type") == "local" else ""


def url_of(spec: Fields, findings: Findings) -> str:
    """Of a store of the types `s3` and `gcs`; empty: another one, or none."""
    kind = spec.text("type")
    for other in ("local", *_SCHEMES):
        if other != kind and other in spec:
            findings.error(spec.key(other), f"{other} config can only be set when type is {other}")
    if kind not in _SCHEMES:
        return ""
    if kind not in spec:
        findings.error(spec.node, f"{kind} config is required when type is {kind}")
        return ""
    place = spec.one(kind)
    where = f"{_SCHEMES[kind]}://{place.text('bucket')}/{quote(place.text('prefix').strip('/'))}".rstrip("/")
    given = {name: place.text(name) for name in ("region", "endpoint") if place.text(name)}
    return f"{where}?{urlencode(given)}" if given else where
