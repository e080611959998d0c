"""What every command has in common: its options, its settings, its output, and how it runs and reaches the queue."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from worker.cli.screen import Screen

if TYPE_CHECKING:
    from worker.client import Fleet
    from worker.settings import Settings

T = TypeVar("T")


class Invocation:
    """One run of one command."""

    def __init__(self, *, queue_url: str | None, config: Path | None, written_as: str) -> None:
        self._queue_url = queue_url
        self._config = config
        self.screen = Screen(as_json=written_as == "json", as_yaml=written_as == "yaml")
        self.is_queue_given = queue_url is not None
        """Whether `--queue` was among the arguments."""

    def settings(
        self, overrides: Mapping[str, object] | None = None, *, environ: Mapping[str, str] = os.environ
    ) -> Settings:
        """The settings with this command's flags on top. Raises `BadSetting`."""
        from worker.settings import load_settings

        flags: dict[str, object] = {"queue_url": self._queue_url, **(overrides or {})}
        return load_settings(environ, file=self._config, overrides=flags)

    @asynccontextmanager
    async def fleet(self, settings: Settings | None = None) -> AsyncIterator[Fleet]:
        """A connection to the queue. Raises `QueueError`s as the backend does."""
        from worker.client import Fleet, connect

        settings = settings or self.settings()
        if settings.stream_url or settings.state_url or settings.queue_plugin_addr:
            from worker.assembly import open_backends  # imports the whole worker

            async with await open_backends(settings) as backend:
                yield Fleet(backend)
        else:
            async with connect(settings.queue_url, options=settings.backend) as fleet:
                yield fleet

    def wait_for(self, work: Coroutine[Any, Any, T], *, log_level: str = "error") -> T:
        """Run the command's work in an event loop of its own. Ctrl-C cancels it and raises `KeyboardInterrupt`.

        Log lines from `log_level` on go to stderr, unless `SHOAL_LOG_LEVEL` says otherwise.
        """
        from worker.log import LEVELS, configure_logging

        level = os.environ.get("SHOAL_LOG_LEVEL", "").lower()
        # What matters comes as an error or as output; stdout is for what was asked for.
        configure_logging(level if level in LEVELS else log_level, pretty=True, stream=sys.stderr)
        return asyncio.run(work)


Command = Callable[..., int | None]


def shoal_options(function: Command) -> Command:
    """Give a command the options that all have, and an `Invocation` as its first argument."""
    return _with_options(function, "-o", "--print")


def options_beside_a_file(function: Command) -> Command:
    """The same for a command whose `-o` is a file."""
    return _with_options(function, "--print")


def _with_options(function: Command, *how_to_print: str) -> Command:
    @click.option(
        "--queue", "queue_url", metavar="URL", help="The queue.  [env: TASK_QUEUE_URL; default: on this machine]"
    )
    @click.option(
        "--config",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="Settings file.  [env: SHOAL_CONFIG; default: ./shoal.yaml]",
    )
    @click.option(
        *how_to_print,
        "written_as",
        type=click.Choice(("table", "json", "yaml")),
        default="table",
        help="For people, or documents for programs; streams and lists are one for each item.  [default: table]",
    )
    @click.option("--json", "written_as", flag_value="json", help="The same as --print json: a document a line.")
    @click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
    @functools.wraps(function)
    def command(
        *arguments: Any, queue_url: str | None, config: Path | None, written_as: str, **options: Any
    ) -> int | None:
        return function(Invocation(queue_url=queue_url, config=config, written_as=written_as), *arguments, **options)

    return command


def examples(*lines: str) -> str:
    """The part of a command's help that shows its use."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
