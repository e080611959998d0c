"""How figures are written for people."""

from __future__ import annotations

import time
from datetime import datetime

from queue_backends import TaskResult, TaskState, TokenUsage

STATE_STYLES = {
    TaskState.READY: "",
    TaskState.DELAYED: "warn",
    TaskState.RUNNING: "tool",
    TaskState.SUCCEEDED: "good",
    TaskState.FAILED: "bad",
    TaskState.CANCELLED: "dim",
    TaskState.UNKNOWN: "dim",
}


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 2 h`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for size, unit, part, part_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {part_unit}" if rest else "")
    return f"{whole} s"


def moment(at: float) -> str:
    """A moment in local time: today's without its date. Empty for 0."""
    if not at:
        return ""
    local = time.localtime(at)
    is_today = local[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S", local)


def ago(at: float, *, now: float | None = None) -> str:
    """`12 s ago`, `3 min ago`, `2 h ago`; empty for 0."""
    if not at:
        return ""
    age = duration((time.time() if now is None else now) - at)
    return f"{' '.join(age.split()[:2])} ago"


def at_rfc3339(text: str) -> float:
    """The moment that ark's wire writes so, in Unix seconds; 0 if the text is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def count(number: int | None) -> str:
    """A number with thousands apart; `?` if it is not known."""
    return "?" if number is None else f"{number:,}".replace(",", " ")


def short_count(number: float) -> str:
    """A figure in few characters: `0`, `3.2`, `940`, `12.3k`, `4.5M`, `1.2G`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}" if number else "0"


def megabytes(size_bytes: int) -> str:
    """`68 MB`, `1.2 GB`; empty for 0."""
    if not size_bytes:
        return ""
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:.1f} GB"


def usd(amount: float | None) -> str:
    """`$0.0012`, `$3.40`; `?` if it is not known."""
    if amount is None:
        return "?"
    return (
        f"${amount:.2f}" if amount >= 1 or amount == 0 else f"${amount:.4f}" if amount >= 0.0001 else f"${amount:.6f}"
    )


def usage(tokens: TokenUsage) -> str:
    """`154 tokens (120 in, 34 out)`, with what was cached."""
    if tokens.input_tokens is None and tokens.output_tokens is None:
        return "tokens unknown"
    parts = [f"{count(tokens.input_tokens)} in"]
    if tokens.cache_read_tokens:
        parts[0] += f" of which {count(tokens.cache_read_tokens)} cached"
    parts.append(f"{count(tokens.output_tokens)} out")
    return f"{count(tokens.total_tokens)} tokens ({', '.join(parts)})"


def ending(result: TaskResult, *, elapsed_s: float | None = None) -> str:
    """The line after an answer: tokens, time and cost."""
    parts = [usage(result.usage)]
    if elapsed_s is not None:
        parts.append(duration(elapsed_s))
    parts.append("cost unknown" if result.cost_usd is None else usd(result.cost_usd))
    parts.append(f"task {result.task_id}")
    return " · ".join(parts)


def shorten(text: str, width: int) -> str:
    """One line of at most `width` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: max(width - 1, 0)] + "…"
