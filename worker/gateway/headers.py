"""Headers that every answer has, so that browsers do nothing with it that was not meant."""

from __future__ import annotations

from typing import Final

_EVERYWHERE: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_API_POLICY: Final = b"default-src 'none'; frame-ancestors 'none'"
_PAGE_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    b"connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

Raw = list[tuple[bytes, bytes]]


def with_safe_headers(headers: Raw, *, is_shared: bool) -> Raw:
    """The headers, and those of ours that it has not. `is_shared`: pages of other origins may read the answer."""
    given = {name.lower(): value for name, value in headers}
    added = [(name, value) for name, value in _EVERYWHERE if name not in given]
    if is_shared:
        added = [(name, value) for name, value in added if name != b"cross-origin-resource-policy"]
    if b"content-security-policy" not in given:
        is_page = given.get(b"content-type", b"").startswith(b"text/html")
        added.append((b"content-security-policy", _PAGE_POLICY if is_page else _API_POLICY))
    return [*headers, *added]
