"""Kinds of values that flags take: durations, moments, key=value pairs."""

from __future__ import annotations

import re
import time
from datetime import datetime

import click

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?")
_UNIT_S = {"ms": 0.001, "": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[float]):
    """Seconds, or a number with a unit: `30`, `500ms`, `5m`, `2h`, `1d`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The duration in seconds."""
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.fullmatch(str(value).strip().lower())
        if match is None:
            self.fail(f"{value!r} is no duration: use seconds or a unit, such as 30, 5m, 2h, 1d", param, ctx)
        return float(match[1]) * _UNIT_S[match[2] or ""]


class Moment(click.ParamType[float]):
    """A moment: `2026-04-04T17:48:15Z`, `17:30` (the next one, local time), or Unix seconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The moment in Unix seconds."""
        text = str(value).strip()
        try:
            return float(text)
        except ValueError:
            pass
        try:
            return self._clock_time(text) if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text) else _iso(text)
        except ValueError:
            self.fail(f"{value!r} is no time: use 2026-04-04T17:48:15Z, 17:30 or Unix seconds", param, ctx)

    def _clock_time(self, text: str) -> float:
        hour, minute, second = ([int(part) for part in text.split(":")] + [0])[:3]
        today = datetime.now().astimezone().replace(hour=hour, minute=minute, second=second, microsecond=0)
        at = today.timestamp()
        return at if at > time.time() else at + 86400


class Pair(click.ParamType[tuple[str, str]]):
    """`key=value`."""

    name = "key=value"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """The key and the value."""
        key, separator, text = str(value).partition("=")
        if not key or not separator:
            self.fail(f"{value!r} is no pair: use key=value", param, ctx)
        return key, text


def _iso(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.astimezone()).timestamp()


DURATION = Duration()
MOMENT = Moment()
PAIR = Pair()
