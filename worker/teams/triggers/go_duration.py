"""Durations as Go writes them: `90s`, `1m30s`, `1.5h`. Source: https://pkg.go.dev/time#ParseDuration."""

from __future__ import annotations

import re

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})(ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def parse_go_duration(text: str) -> float:
    """A duration in seconds. Raises `ValueError`."""
    given = text.strip()
    total, at = 0.0, 0
    while match := _PART.match(given, at):
        total += float(match[1]) * _UNITS_S[match[2]]
        at = match.end()
    if not given or at != len(given):
        raise ValueError(f"{text[:40]!r} is no duration: use a form such as 30s, 2m or 1m30s")
    return total


def as_go_duration(seconds: float) -> str:
    """Seconds as Go prints them: `1m0s`, `500ms`, `2h0m0s`."""
    if 0 < seconds < 1:
        return f"{round(seconds * 1000, 3):g}ms"
    whole_minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(whole_minutes), 60)
    shown = f"{round(rest, 3):g}s"
    if hours:
        return f"{hours}h{minutes}m{shown}"
    return f"{minutes}m{shown}" if minutes else shown
