"""Reading claims of a token, whatever shape an issuer gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_MOST: Final = 500
"""Groups or scopes of one caller that are looked at."""


def at(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a path: `realm_access.roles`. A name with dots in it (`https://example.com/groups`)
    is found too. None: there is none."""
    if not path:
        return None
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def texts(value: Any) -> list[str]:
    """A list of texts, or one text with blanks between, as a list."""
    if isinstance(value, str):
        return value.split()[:_MOST]
    if isinstance(value, list):
        return [item for item in value[:_MOST] if isinstance(item, str) and item]
    return []
