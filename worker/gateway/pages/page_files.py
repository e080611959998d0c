"""The files of the pages, read once: their bytes, type and tag."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

from msgspec import Struct

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class PageFile(Struct, frozen=True):
    """One file."""

    content: bytes
    media_type: str
    tag: str
    """Its strong entity tag, quotes included."""


@cache
def page_files() -> Mapping[str, PageFile]:
    """All of them by path, such as `kit/dom.js`."""
    found: dict[str, PageFile] = {}
    _collect(files("worker.gateway.pages") / "files", "", found)
    return MappingProxyType(found)


def _collect(folder: Traversable, prefix: str, found: dict[str, PageFile]) -> None:
    for entry in folder.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            _collect(entry, f"{name}/", found)
            continue
        dot = entry.name.rfind(".")
        media_type = _TYPES.get(entry.name[dot:])
        if media_type is not None:
            content = entry.read_bytes()
            tag = hashlib.sha256(content).hexdigest()[:20]
            found[name] = PageFile(content, media_type, f'"{tag}"')
