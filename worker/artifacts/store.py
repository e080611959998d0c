"""What keeps artifacts."""

from __future__ import annotations

import mimetypes
from typing import Protocol

OF_UNKNOWN_TYPE = "application/octet-stream"


class ArtifactStore(Protocol):
    """Keeps files under keys such as `<run>/<step>/<name>`, and finds them by the URL that it gave.

    What a whole exchange may take is the caller's to bound.
    """

    async def put(self, key: str, data: bytes, content_type: str) -> str:
        """Keep the content and return its URL. What the key had before is replaced. Raises `ArtifactsFailed`."""
        ...

    async def get(self, url: str, most_bytes: int) -> bytes:
        """The content of a URL that `owns` accepts. Raises `ArtifactsFailed`, for more bytes than allowed too."""
        ...

    def owns(self, url: str) -> bool:
        """Whether the URL names a place within this store; no other is ever read."""
        ...

    async def aclose(self) -> None:
        """Give up connections."""
        ...


def content_type_of(name: str) -> str:
    """By the ending of a file's name."""
    kind, encoding = mimetypes.guess_type(name)
    return OF_UNKNOWN_TYPE if kind is None or encoding is not None else kind


def within(url: str, base: str) -> bool:
    """Whether a URL begins with `base`, which ends in `/`, and stays there."""
    rest = url.removeprefix(base)
    return url.startswith(base) and bool(rest) and all(part not in ("", ".", "..") for part in rest.split("/"))
