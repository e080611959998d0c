"""Pictures, as the vendors' clients send them."""

from __future__ import annotations

import base64
import binascii

from providers import ImagePart
from worker.gateway.problem import Problem

MEDIA_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


def image_of_url(url: str, where: str) -> ImagePart:
    """A picture from its address, which may be all of it (`data:`). Raises `Problem` 400 that names `where`."""
    if url.startswith("data:"):
        head, _, data = url[5:].partition(",")
        media_type, _, encoding = head.partition(";")
        if encoding != "base64":
            raise _refused(where, "write a data: URL as data:image/png;base64,…")
        return image_of_data(media_type, data, where)
    if url.startswith(("https://", "http://")):
        return ImagePart(url=url)
    raise _refused(where, f"{url[:50]!r} is no address: use https:// or data:")


def image_of_data(media_type: str, data: str, where: str) -> ImagePart:
    """A picture from its base64 text."""
    if media_type not in MEDIA_TYPES:
        raise _refused(where, f"{media_type[:50]!r} is not supported: use {', '.join(sorted(MEDIA_TYPES))}")
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(where, f"the data is no base64: {error}") from error
    return ImagePart(media_type=media_type, data=data)


def _refused(where: str, why: str) -> Problem:
    return Problem(400, f"{where}: {why}", code="invalid_image", extra={"param": where})
