"""Python tools that the workers load; their effects go to the diary that the environment names."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from tests.faults.diaries import Diary
from tests.faults.plans import done_text
from worker import tool

DIARY_VARIABLE = "FAULTS_EFFECTS"


def _take_effect(name: str, key: str, step: str) -> None:
    diary = Diary(Path(os.environ[DIARY_VARIABLE]))
    diary.note(tool=name, key=key, step=step)
    diary.close()


@tool
async def note(key: str, step: str, hold_s: float) -> str:
    """Leave a note; twice would be once too often."""
    await asyncio.sleep(hold_s / 2)
    _take_effect("note", key, step)
    await asyncio.sleep(hold_s / 2)
    return done_text(key, step)


@tool(idempotent=True)
def count(key: str, step: str, hold_s: float) -> str:
    """Count, in a thread; again does no harm."""
    time.sleep(hold_s / 2)
    _take_effect("count", key, step)
    time.sleep(hold_s / 2)
    return done_text(key, step)
