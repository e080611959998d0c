"""What of an act's details may be written down, and how much of it. Source: kubeswarm's audit log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from queue_backends.messages import JsonObject
from worker.log import mask_text

REDACTED = "[REDACTED]"
TRUNCATED = "[truncated]"
_BOUNDED = ("input", "output")


class Redaction:
    """Makes details fit to be read: what patterns name is hidden, what looks like a secret masked, what is long cut."""

    def __init__(self, patterns: Sequence[str], max_bytes: int) -> None:
        """`max_bytes` 0: no limit."""
        self._patterns = [pattern.split(".") for pattern in patterns]
        self._max_bytes = max_bytes

    def of(self, detail: Mapping[str, Any]) -> JsonObject:
        """The details as they are written down, sorted by name."""
        fit: JsonObject = {}
        for name, value in sorted(detail.items()):
            fit[name] = self._fit(["detail", name], value)
        for name in _BOUNDED:
            if isinstance(text := fit.get(name), str) and self._is_too_long(text):
                fit[name] = _cut(text, self._max_bytes)
                fit["truncated"] = True
        return dict(sorted(fit.items()))

    def _fit(self, path: list[str], value: Any) -> Any:
        if self._is_hidden(path):
            return REDACTED
        if isinstance(value, Mapping):
            return {str(name): self._fit([*path, str(name)], each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._fit([*path, str(number)], each) for number, each in enumerate(value)]
        if isinstance(value, str):
            return mask_text(self._within(path, encodable(value)))
        return value

    def _within(self, path: list[str], text: str) -> str:
        """A text that is a JSON object or array, such as a tool's arguments, has paths too. One that is nested too deep
        to be looked through is hidden as a whole."""
        if not any(len(pattern) > len(path) for pattern in self._patterns) or not text.lstrip().startswith(("{", "[")):
            return text
        try:
            return msgspec.json.encode(self._fit(path, msgspec.json.decode(text))).decode()
        except msgspec.DecodeError:
            return text
        except RecursionError:
            return REDACTED

    def _is_hidden(self, path: Sequence[str]) -> bool:
        return any(len(pattern) == len(path) and all(map(fnmatchcase, path, pattern)) for pattern in self._patterns)

    def _is_too_long(self, text: str) -> bool:
        return 0 < self._max_bytes < len(text.encode("utf-8", "replace"))


def encodable(text: str) -> str:
    """The text without what no JSON can hold: halves of characters."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _cut(text: str, max_bytes: int) -> str:
    kept = text.encode("utf-8", "replace")[: max(0, max_bytes - len(TRUNCATED))]
    return kept.decode("utf-8", "ignore") + TRUNCATED
