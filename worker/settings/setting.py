"""One setting as data, and short ways to write down the common kinds."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

MAX_SECONDS = 366 * 24 * 3600


class Setting(Struct, frozen=True, kw_only=True):
    """One setting. `minimum` and `maximum` are inclusive; `choices` are all allowed values, any letter case."""

    key: str
    type: Any
    meaning: str
    variable: str = ""
    """Its environment variable; empty: only in `shoal.yaml` and by flag."""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False
    """May hold a password: shown masked everywhere."""

    @property
    def allowed(self) -> str:
        """What it may be, in words: for error messages and the documentation."""
        if self.choices:
            return " | ".join(self.choices)
        if self.maximum is not None:
            return f"{_plain(self.minimum or 0)} to {_plain(self.maximum)}"
        if self.minimum is not None:
            return f"{_plain(self.minimum)} or more"
        return _ALLOWED.get(self.type, "JSON in a variable, plain YAML in the file")


_ALLOWED: dict[Any, str] = {
    str: "text",
    bool: "1, true, yes, on, or 0, false, no, off",
    tuple[str, ...]: "comma-separated in a variable, a list in the file",
}


def text(key: str, variable: str, meaning: str) -> Setting:
    """A text."""
    return Setting(key=key, type=str, variable=variable, meaning=meaning)


def texts(key: str, variable: str, meaning: str) -> Setting:
    """A list of texts."""
    return Setting(key=key, type=tuple[str, ...], variable=variable, meaning=meaning)


def whole(key: str, variable: str, meaning: str, minimum: int, maximum: int | None = None) -> Setting:
    """A whole number."""
    return Setting(key=key, type=int, variable=variable, meaning=meaning, minimum=minimum, maximum=maximum)


def number(key: str, variable: str, meaning: str, minimum: float, maximum: float) -> Setting:
    """A number that may be left out."""
    return Setting(key=key, type=float | None, variable=variable, meaning=meaning, minimum=minimum, maximum=maximum)


def seconds(key: str, variable: str, meaning: str, minimum: float, maximum: float = MAX_SECONDS) -> Setting:
    """A time in seconds."""
    return Setting(key=key, type=float, variable=variable, meaning=meaning, minimum=minimum, maximum=maximum)


def _plain(bound: float) -> str:
    return f"{bound:g}" if bound != int(bound) else str(int(bound))
