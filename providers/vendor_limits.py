"""How much of a key's rate limits is left, as vendors tell it in the headers of an answer. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from msgspec import Struct

_UNIX_S = 1e9
_UNIX_MS = 1e12
"""A number of seconds until a reset is smaller; one from here on is a moment."""
_LARGEST = 1e15


class LimitWindow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One limit as the vendor counts it. None: it did not say."""

    limit: int | None = None
    """How much there is when nothing is used; for most vendors, what may be used per minute."""
    remaining: int | None = None
    reset_s: float | None = None
    """Seconds from the answer on until nothing counts as used any more."""
    window_s: float | None = None
    """Over how many seconds the limit is: 60 in the vendors' own headers."""


class VendorLimits(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The limits that one answer tells of. None: it tells nothing of that kind."""

    requests: LimitWindow | None = None
    tokens: LimitWindow | None = None
    """Input and output together."""
    input_tokens: LimitWindow | None = None
    output_tokens: LimitWindow | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str], now: float) -> VendorLimits | None:
        """What the headers (names in lower case) say, at `now` (Unix seconds); None if nothing.

        Reads Anthropic's `anthropic-ratelimit-<kind>-<field>` (resets as RFC 3339 moments), the
        `x-ratelimit-<field>-<kind>` of OpenAI, Azure and the servers that follow them (resets such as `6m0s` or plain
        seconds; kinds with `-minute` behind and Fireworks' `tokens-prompt` and `tokens-generated`, too), and for
        requests `ratelimit-<field>` and `x-ratelimit-<field>`, as proxies and gateways send them (resets as seconds or
        as Unix time). What cannot be read counts as absent.
        """
        if not any("ratelimit-" in name for name in headers):
            return None
        found = {kind: _window(headers, names, now) for kind, names in _FORMS.items()}
        if all(window is None for window in found.values()):
            return None
        return cls(**found)


class _Form(NamedTuple):
    """The names of the headers that tell of one limit, and over how many seconds it is."""

    limit: str
    remaining: str
    reset: str
    window_s: float | None

    @classmethod
    def of(cls, pattern: str, window_s: float | None) -> _Form:
        """With `limit`, `remaining` and `reset` in the place of `{}`."""
        return cls(pattern.format("limit"), pattern.format("remaining"), pattern.format("reset"), window_s)


def _forms(kind: str, *others: str) -> tuple[_Form, ...]:
    """By vendor; the first form that is there counts."""
    dashed = kind.replace("_", "-")
    patterns = [f"anthropic-ratelimit-{dashed}-{{}}"]
    patterns += [f"x-ratelimit-{{}}-{name}" for name in (dashed, f"{dashed}-minute", *others)]
    forms = [_Form.of(pattern, 60.0) for pattern in patterns]
    if kind == "requests":
        forms += [_Form.of("ratelimit-{}", None), _Form.of("x-ratelimit-{}", None)]
    return tuple(forms)


_FORMS: Mapping[str, tuple[_Form, ...]] = {
    "requests": _forms("requests"),
    "tokens": _forms("tokens"),
    "input_tokens": _forms("input_tokens", "tokens-prompt"),
    "output_tokens": _forms("output_tokens", "tokens-generated"),
}


def _window(headers: Mapping[str, str], forms: tuple[_Form, ...], now: float) -> LimitWindow | None:
    for form in forms:
        limit, remaining = _count(headers.get(form.limit, "")), _count(headers.get(form.remaining, ""))
        reset = reset_s(headers.get(form.reset, ""), now)
        if limit is None and remaining is None and reset is None:
            continue
        window_s = form.window_s or _policy_window_s(headers.get(form.limit, ""))
        return LimitWindow(limit=limit, remaining=remaining, reset_s=reset, window_s=window_s)
    return None


def _policy_window_s(limit: str) -> float | None:
    """`100;w=10` or `100, 100;w=10`: the limit is over 10 seconds."""
    match = re.search(r";\s*w=(\d{1,9})\b", limit)
    return float(match[1]) if match and int(match[1]) else None


def _count(text: str) -> int | None:
    """A whole number that is not negative; `100, 100;w=60` names its policy behind the number."""
    number = re.split(r"[,;]", text, maxsplit=1)[0].strip()
    try:
        value = float(number)
    except ValueError:
        return None
    return int(value) if 0 <= value < _LARGEST else None


def reset_s(text: str, now: float) -> float | None:
    """Seconds from `now` until a moment or the end of a span of time that a header names; None if it names none."""
    text = text.strip()
    if not text:
        return None
    seconds = _number(text, now)
    if seconds is None:
        seconds = duration_s(text)
    if seconds is None:
        seconds = until(text, now)
    return None if seconds is None else max(seconds, 0.0)


def _number(text: str, now: float) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    if not abs(value) < _LARGEST:
        return None
    if value >= _UNIX_MS:
        return value / 1000 - now
    return value - now if value >= _UNIX_S else value


def until(text: str, now: float) -> float | None:
    """Seconds from `now` until an RFC 3339 moment; None if the text is none."""
    try:
        return datetime.fromisoformat(text).timestamp() - now
    except (ValueError, OverflowError):
        return None


_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?")
_UNIT_S = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)


def duration_s(text: str) -> float | None:
    """A span such as `6m0s`, `1d2h` or `12ms`, in seconds; None if the text is none."""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        return None
    try:
        return sum(float(number) * unit for number, unit in zip(match.groups(), _UNIT_S, strict=True) if number)
    except ValueError:
        return None
