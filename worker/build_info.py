"""Which build this is: all of it interpreted, or the hot modules compiled (docs/fleet.md, "The compiled build")."""

from __future__ import annotations

import functools
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

PACKAGES = ("queue_backends", "providers", "worker")
_ROOT = Path(__file__).parents[1]


@functools.cache
def compiled_modules() -> tuple[str, ...]:
    """The modules that run compiled, sorted by name, such as `worker.task_run`. Empty where all is interpreted.

    Python prefers an extension module that lies beside a module's source; one that was made for another version of
    Python counts for nothing.
    """
    found = [
        ".".join(Path(folder, name).relative_to(_ROOT).with_name(name.partition(".")[0]).parts)
        for package in PACKAGES
        for folder, _, names in os.walk(_ROOT / package)
        for name in names
        if name.removeprefix(name.partition(".")[0]) in EXTENSION_SUFFIXES
    ]
    return tuple(sorted(found))


def build() -> str:
    """`compiled` or `interpreted`."""
    return "compiled" if compiled_modules() else "interpreted"
