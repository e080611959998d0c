"""What a check found."""

from __future__ import annotations

import enum

from msgspec import Struct


class Verdict(enum.StrEnum):
    """How good it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but somebody should know."""
    PROBLEM = "problem"
    """It does not work."""


class Finding(Struct, frozen=True, kw_only=True):
    """One fact about the set-up."""

    area: str
    """`settings`, `queue`, `provider`, `tools` or `agents`."""
    name: str
    verdict: Verdict
    detail: str
    advice: str = ""
    """What to do; empty if nothing."""


def fine(area: str, name: str, detail: str) -> Finding:
    """All is well."""
    return Finding(area=area, name=name, verdict=Verdict.OK, detail=detail)


def doubtful(area: str, name: str, detail: str, advice: str) -> Finding:
    """It works, but somebody should know."""
    return Finding(area=area, name=name, verdict=Verdict.WARNING, detail=detail, advice=advice)


def broken(area: str, name: str, detail: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(area=area, name=name, verdict=Verdict.PROBLEM, detail=detail, advice=advice)
