"""From an exception to one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import traceback

import click

OK = 0
FAILED = 1
USAGE = 2
QUEUE_UNAVAILABLE = 3
NOT_FOUND = 4
INTERRUPTED = 130


def report_failure(error: BaseException, *, debug: bool = False) -> int:
    """Write what went wrong and return the exit code. With `debug`, the traceback comes first."""
    cause = first_cause(error)
    if isinstance(cause, click.exceptions.Exit):
        return cause.exit_code
    if isinstance(cause, KeyboardInterrupt | click.Abort):
        return INTERRUPTED
    if debug:
        traceback.print_exception(error)
    if isinstance(cause, click.exceptions.NoArgsIsHelpError):  # a group without a command: its help is what is missing
        sys.stderr.write(f"{cause.format_message()}\n")
        return USAGE
    message = message_of(cause)
    red, reset = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    sys.stderr.write(f"{red}error:{reset} {message}\n")
    return exit_code_of(cause)


def first_cause(error: BaseException) -> BaseException:
    """The error itself, or the first one inside an exception group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def message_of(error: BaseException) -> str:
    """One line that says what was wrong and what to do; of a team file, one for each error in it."""
    from worker.teams.errors import BadTeamFile

    if isinstance(error, BadTeamFile):
        return str(error)
    text = " ".join(str(error).split())
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "shoal"
        return f"{_without_dot(' '.join(error.format_message().split()))} (see: {command} --help)"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if _is_expected(error):
        return text or type(error).__name__
    return f"unexpected {type(error).__name__}: {text} (--debug shows where)"


def exit_code_of(error: BaseException) -> int:
    """The exit code for an error, as `shoal --help` documents them."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    # Only errors of modules that are already imported can occur, so these imports cost nothing that matters.
    from queue_backends import (
        BackendMisconfigured,
        BackendUnavailable,
        InvalidTask,
        TaskNotFound,
        UnknownBackend,
    )
    from worker.errors import AgentNotFound, ApprovalDecided, ApprovalNotFound, BadSetting, WorkerNotFound
    from worker.objects.errors import BadObject, ObjectNotFound

    if isinstance(error, BadObject | BadSetting | InvalidTask):
        return USAGE
    if isinstance(error, BackendUnavailable | BackendMisconfigured | UnknownBackend):
        return QUEUE_UNAVAILABLE
    if isinstance(error, TaskNotFound | AgentNotFound | ApprovalNotFound | ObjectNotFound | WorkerNotFound):
        return NOT_FOUND
    if isinstance(error, ApprovalDecided):  # nobody waits for that answer
        return NOT_FOUND
    from worker.datasources.errors import BadVectorStore, DatasourceNotFound

    if isinstance(error, DatasourceNotFound):
        return NOT_FOUND
    from worker.agent_plugins.errors import BadPluginConfig, PluginNotFound

    if isinstance(error, PluginNotFound):
        return NOT_FOUND
    if isinstance(error, BadPluginConfig):
        return USAGE
    if isinstance(error, BadVectorStore):
        return USAGE
    from worker.teams.errors import BadInput, BadTeamFile, RunNotFound, TeamNotFound, TemplateError

    if isinstance(error, BadInput | BadTeamFile | TemplateError):
        return USAGE
    if isinstance(error, RunNotFound | TeamNotFound):
        return NOT_FOUND
    return FAILED


def _is_expected(error: BaseException) -> bool:
    from providers import ProviderError
    from queue_backends import QueueError
    from worker.errors import WorkerError

    return isinstance(error, QueueError | ProviderError | WorkerError)


def _without_dot(text: str) -> str:
    return text.removesuffix(".")
