"""What a scheduler may want done. It never does it itself: the driver does."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from worker.teams.run_events import Event

Purpose: TypeAlias = Literal["step", "repair", "check", "compress", "route", "summary"]


class Note(Struct, frozen=True, kw_only=True):
    """Write these events into the run's log, in one step."""

    events: tuple[Event, ...]


class Submit(Struct, frozen=True, kw_only=True):
    """Have a model work for a step: a task, or a run of the team that its role is."""

    step: str
    iteration: int
    attempt: int
    purpose: Purpose
    role: str


class AskPerson(Struct, frozen=True, kw_only=True):
    """Ask whether a step may begin."""

    step: str


class Stop(Struct, frozen=True, kw_only=True):
    """End what still works for the run: its tasks, those that they delegated, the runs of its steps."""

    reason: str
    steps: tuple[str, ...] = ()
    """Of these steps alone; empty: of all."""


Action: TypeAlias = Note | Submit | AskPerson | Stop
