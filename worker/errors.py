"""What can go wrong in the worker, as one tree. The families say what the caller does next.

WorkerError
├── BadSetting              fix the setting: the message names it, its value and what is allowed
├── AgentNotFound           no agent of that name is declared: fix the task, or declare the agent
├── AgentUnusable           an agent is declared, and what it is made of is not there or does not fit: repair that
├── AccessDenied            somebody may not do that, or not with that agent; `worker.agents.errors` has the reasons
├── WorkerNotFound          no worker of that name tells of itself: `shoal workers` lists those that do
├── ApprovalNotFound        there is no such question: `shoal approve` lists those that wait
├── ApprovalDecided         somebody has answered that question already, or its time is up; the message says how
├── ToolError               tools
│   ├── ToolSetupFailed     a tool or tool server cannot be offered: fix its declaration, credentials or server
│   └── ToolCallFailed      one call failed; the text is written for the model, which decides what to do
│       └── ToolUnavailable the tool's server cannot be reached right now; nothing was done
├── ArtifactsFailed        a file of a task could not be stored, or not be read (`worker.artifacts.errors`)
├── WaitedTooLong           the task was postponed again and again, for longer than is allowed: give it up
├── Postponed               no model call can be made now: the task gives its slot back and comes again
└── DeadlineExceeded        stop at once: the run's time is up
"""

from __future__ import annotations


class WorkerError(Exception):
    """Root of everything that the worker raises."""


class BadSetting(WorkerError):
    """A setting cannot be used. The message is one line: which one, its value, and what is allowed."""


class AgentNotFound(WorkerError):
    """No agent of that name is declared."""


class AgentUnusable(WorkerError):
    """What a declared agent is made of is not there, or does not fit together. The message names it."""


class AccessDenied(WorkerError):
    """The caller, or the agent itself, may not. The message says why, and tells nothing of others."""


class WorkerNotFound(WorkerError):
    """No worker of that name, or several. The message says which ones there are."""


class ApprovalNotFound(WorkerError):
    """There is no question of that id, or it is no longer kept."""


class ApprovalDecided(WorkerError):
    """A question that was answered already, or whose time is up. The message says how it was decided."""


class ToolError(WorkerError):
    """Root of what goes wrong with tools."""


class ToolSetupFailed(ToolError):
    """A tool, or a server that offers tools, cannot be set up."""


class ToolCallFailed(ToolError):
    """A tool call failed. The message goes to the model, so it says what happened and holds no secret."""


class ToolUnavailable(ToolCallFailed):
    """The tool's server cannot be reached right now; the call was not sent."""


class Postponed(WorkerError):
    """The next model call cannot be made for a while: a limit leaves no room, or its provider is away. It is no failed
    attempt."""

    def __init__(self, message: str, *, retry_in_s: float) -> None:
        super().__init__(message)
        self.retry_in_s = retry_in_s


class WaitedTooLong(WorkerError):
    """A task has waited for its next model call for as long as any may."""


class DeadlineExceeded(WorkerError):
    """The run's time limit or its task's deadline has passed."""
