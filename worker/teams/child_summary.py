"""What an entry role is told of the tasks that it delegated and never collected."""

from __future__ import annotations

from collections.abc import Sequence

from worker.teams.run_state import ChildState


def summary_prompt(children: Sequence[ChildState]) -> str:
    """What an entry role is told of delegated tasks whose results it has not asked for, so that it can finish."""
    parts = [_told(child) for child in children]
    return (
        "The tasks that you delegated have ended. These are their results:\n\n"
        + "\n\n".join(parts)
        + "\n\nUse them to complete your task, and give your final answer now."
    )


def _told(child: ChildState) -> str:
    result = f"[error] {child.error}" if child.error else child.output
    asked = f"\nasked: {child.prompt}" if child.prompt else ""
    return f"## {child.role} ({child.task_id}){asked}\n{result}"
