"""Keeps passwords out of everything that shows a setting."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

MASK = "***"

_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth|cookie", re.IGNORECASE)
_NO_SECRET = re.compile(r"_env$|EnvVar$|^(max_)?(\w+_)?tokens$", re.IGNORECASE)
"""Fields that name a variable, and limits of tokens."""


def masked_url(url: str) -> str:
    """The URL without its password, and without query values whose names sound secret."""
    has_scheme = "://" in url
    try:
        parts = urlsplit(url if has_scheme else f"//{url}")
    except ValueError:
        return MASK
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at and ":" in parts.netloc and "@" in (behind := url.rpartition(parts.netloc)[2]):
        # A password with a "/", "?" or "#" that should have been quoted: what looks like a path is a part of it.
        return f"{parts.scheme}://{MASK}@{behind.rpartition('@')[2]}" if has_scheme else MASK
    if at:
        user = userinfo.partition(":")[0]
        host = f"{user}:{MASK}@{host}" if ":" in userinfo else f"{MASK}@{host}"
    query = urlencode(
        [
            (name, MASK if _SECRET_NAME.search(name) else value)
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        ],
        safe=MASK + ":/{}",
    )
    return urlunsplit((parts.scheme, host, parts.path, query, "")).removeprefix("" if has_scheme else "//")


def masked(value: Any) -> Any:
    """A plain value (mappings, lists, texts) with every secret-sounding field and every URL's password replaced."""
    if isinstance(value, Mapping):
        return {name: _masked_field(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item) for item in value]
    return masked_url(value) if isinstance(value, str) and "://" in value else value


def _masked_field(name: str, value: Any) -> Any:
    if value and isinstance(value, str) and _SECRET_NAME.search(name) and not _NO_SECRET.search(name):
        return MASK
    return masked(value)
