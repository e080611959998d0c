"""Names of artifacts, and the places they get in a store. Nothing in them leads out of a folder."""

from __future__ import annotations

import hashlib
import re

from queue_backends import Task
from worker.artifacts.errors import ArtifactsFailed
from worker.teams.marks import RUN, STEP, Marks

LONGEST_BYTES = 200
OUTSIDE_RUNS = "tasks"
"""Takes the place of a run's name for tasks that belong to none."""
_PLAIN = re.compile(r"[A-Za-z0-9_@+-][A-Za-z0-9._@+-]{0,99}")


def checked_name(name: str) -> str:
    """The name itself, if a file may have it. Raises `ArtifactsFailed`."""
    if (
        not name
        or name.startswith(".")
        or name != name.strip()
        or any(character in "/\\" or not character.isprintable() for character in name)
        or len(name.encode("utf-8", "replace")) > LONGEST_BYTES
    ):
        raise ArtifactsFailed(
            f"{name[:100]!r} is no name for an artifact: use up to {LONGEST_BYTES} printable characters, without / and "
            "\\, that do not begin with a dot"
        )
    return name


def place_of(task: Task, marks: Marks | None, *, for_ark: bool) -> str:
    """Where the files of a task are kept in a store: ark's `<run>/<step>`, or `tasks/<task id>`.

    A run may have several tasks for one step: those that others delegated are kept apart. `for_ark`: an operator of ark
    gives the tasks, so their `run_name` and `step_name` can be trusted; elsewhere anybody may have set them.
    """
    if marks is not None:
        own = () if marks.depth == 0 else (task.id,)
        return "/".join(map(_part, (marks.run, marks.step, *own)))
    run, step = (task.meta.get(key, "") for key in (RUN, STEP))
    if for_ark and run and step:
        return f"{_part(run)}/{_part(step)}"
    return f"{OUTSIDE_RUNS}/{_part(task.id)}"


def _part(text: str) -> str:
    """As a part of a path: as it is, or its hash."""
    return text if _PLAIN.fullmatch(text) else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
