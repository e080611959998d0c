"""Keeps secrets out of what models, logs and errors get to see."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit, urlunsplit

REDACTED = "[redacted]"

_MIN_SECRET_CHARS = 6
"""Shorter values occur by chance in ordinary text; replacing them would garble it and hide nothing."""

_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text with each of the secrets replaced."""
    for secret in secrets:
        if len(secret) >= _MIN_SECRET_CHARS:
            text = text.replace(secret, REDACTED)
    return text


def secret_values(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The values of variables whose names sound secret, the longest first, so that none is replaced in part."""
    values = {value for name, value in environment.items() if _SECRET_NAME.search(name)}
    return tuple(sorted(values, key=len, reverse=True))


def mask_url(url: str) -> str:
    """The URL without user, password and query values."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return REDACTED
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{REDACTED}@{host}" if "@" in parts.netloc else host
    return urlunsplit((parts.scheme, netloc, parts.path, "…" if parts.query else "", ""))
