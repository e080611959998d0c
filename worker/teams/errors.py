"""What can go wrong with teams. The families say what the caller does next.

WorkerError
└── TeamError
    ├── BadTeamFile         the file cannot be used: each finding names its line, field and what is allowed
    ├── TemplateError       a template cannot be read or evaluated; the message has line and column
    ├── BadInput            a run's input does not fit what the team declares
    ├── TeamNotFound        there is no team of that name: the message lists those that there are
    ├── RunNotFound         there is no run of that id, or it is no longer kept
    ├── PlanNotFound        a task names a plan that is not kept here, or is not its run's
    ├── RunEnded            the run has ended: it cannot be cancelled or resumed
    └── RunBusy             somebody else drives the run right now
"""

from __future__ import annotations

from worker.errors import WorkerError


class TeamError(WorkerError):
    """Root of what goes wrong with teams."""


class BadTeamFile(TeamError):
    """A team file cannot be used. The message has one line per finding."""


class TemplateError(TeamError):
    """A template cannot be read or evaluated. `line` and `column` count from 1, within the template's own text."""

    def __init__(self, reason: str, *, line: int = 1, column: int = 1, name: str = "template") -> None:
        super().__init__(f"{name}:{line}:{column}: {reason}")
        self.reason = reason
        self.line = line
        self.column = column
        self.name = name


class BadInput(TeamError):
    """A run's input does not fit what the team declares. The message names the parameter and what is allowed."""


class TeamNotFound(TeamError):
    """There is no team of that name."""


class RunNotFound(TeamError):
    """There is no run of that id, or it is no longer kept."""


class PlanNotFound(TeamError):
    """A task names a plan that is not kept here, or not its run's. Trying again costs nothing, and another worker may
    look into the right store: it is no permanent failure."""


class RunEnded(TeamError):
    """The run has ended already."""


class RunBusy(TeamError):
    """Somebody else drives the run right now."""
