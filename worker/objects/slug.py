"""Names for addresses: what a slug may be, and how one is made of a name."""

from __future__ import annotations

import re
import unicodedata

from worker.objects.errors import BadObject

MOST_CHARS = 63

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9_.-]*[a-z0-9])?")
_GAP = re.compile(r"[^a-z0-9_.]+")


def slugified(name: str) -> str:
    """`Müller's Agent` -> `muller-s-agent`; empty if nothing of the name can stand in a slug."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return _GAP.sub("-", plain).strip("-_.")[:MOST_CHARS].strip("-_.")


def check_slug(what: str, slug: str) -> None:
    """Raise `BadObject` for what is no slug. `what` names the field."""
    if len(slug) > MOST_CHARS or not _SLUG.fullmatch(slug):
        raise BadObject(
            f"{what} is {slug[:100]!r}: use small letters, digits, '-', '_' and '.', beginning and ending with a "
            f"letter or digit, at most {MOST_CHARS} characters"
        )
