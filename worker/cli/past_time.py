"""A moment of the past as a flag takes it: so long ago, a date, or a time."""

from __future__ import annotations

import re
import time
from datetime import datetime

import click

from worker.cli.parameters import DURATION

_UNIX_SECONDS = re.compile(r"\d{9,11}(\.\d+)?")
"""A shorter number is a date without dashes, or a mistake."""


class PastTime(click.ParamType[float]):
    """`7d`, `12h` ago; `2026-11-01` (local midnight); `2026-11-01T17:30:00Z`; or Unix seconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The moment in Unix seconds."""
        text = str(value).strip()
        if text.rstrip("smhdin") != text and text[:1].isdigit():
            return time.time() - DURATION.convert(text, param, ctx)
        if _UNIX_SECONDS.fullmatch(text):
            return float(text)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{value!r} is no time: use 7d, 2026-11-01, 2026-11-01T17:30:00Z or Unix seconds", param, ctx)
        return (moment if moment.tzinfo else moment.astimezone()).timestamp()


PAST = PastTime()
