"""`shoal top`: the fleet, live."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.parameters import DURATION

if TYPE_CHECKING:
    from rich.console import Console

    from worker.fleet.monitor import Monitor

_LEAST_INTERVAL_S = 0.1
_FRAME_TASKS = 20
"""So many running tasks are shown where no terminal limits their number."""


@click.command(
    help="Watch the queue, its workers, the running tasks and what is spent. q or Ctrl-C leaves; nothing else is "
    "changed.\n\n" + examples("shoal top", "shoal top --interval 5", "shoal top --once", "shoal top --once --json")
)
@click.option("--interval", "interval_s", type=DURATION, default=1.0, help="Between two looks; default: 1s.")
@click.option("--once", is_flag=True, help="One frame, then end.")
@shoal_options
def top(call: Invocation, interval_s: float, once: bool) -> int:
    """On a terminal the frame is drawn anew; in a pipe frames follow each other; JSON is one document a line."""
    return call.wait_for(_top(call, max(interval_s, _LEAST_INTERVAL_S), once=once))


async def _top(call: Invocation, interval_s: float, *, once: bool) -> int:
    from worker.background import BackgroundWork
    from worker.fleet.monitor import Monitor

    async with call.fleet() as fleet:
        monitor = Monitor(fleet.backend)
        await monitor.look()
        if once:
            await _write_frame(call, monitor)
            return OK
        async with BackgroundWork(monitor.follow, name="follow workers"):
            with _leaving(call) as leaving:
                if call.screen.fancy:
                    await _draw(call, monitor, interval_s, leaving)
                else:
                    await _write_frames(call, monitor, interval_s, leaving)
    return OK


async def _draw(call: Invocation, monitor: Monitor, interval_s: float, leaving: asyncio.Event) -> None:
    from rich.live import Live

    from worker.cli.top_view import frame

    console = _console(call)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while not leaving.is_set():
            snapshot = await monitor.snapshot()
            width, height = console.size
            live.update(frame(snapshot, title=_title(call), width=width, height=height), refresh=True)
            await _pause(interval_s, leaving)


async def _write_frames(call: Invocation, monitor: Monitor, interval_s: float, leaving: asyncio.Event) -> None:
    while not leaving.is_set():
        await _write_frame(call, monitor)
        await _pause(interval_s, leaving)
        if not (leaving.is_set() or call.screen.as_json):
            call.screen.line()


async def _write_frame(call: Invocation, monitor: Monitor) -> None:
    snapshot = await monitor.snapshot()
    if call.screen.as_json:
        call.screen.json(snapshot)
        return
    from worker.cli.top_view import frame

    console = _console(call)
    console.print(frame(snapshot, title=_title(call), width=console.width, tasks=_FRAME_TASKS))
    call.screen.out.flush()


async def _pause(interval_s: float, leaving: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(interval_s):
            await leaving.wait()


@contextlib.contextmanager
def _leaving(call: Invocation) -> Iterator[asyncio.Event]:
    """An event that q, Ctrl-C and SIGTERM set."""
    loop, leaving = asyncio.get_running_loop(), asyncio.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, leaving.set)
    try:
        with _keys(loop, leaving) if call.screen.fancy and sys.stdin.isatty() else contextlib.nullcontext():
            yield leaving
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _keys(loop: asyncio.AbstractEventLoop, leaving: asyncio.Event) -> Iterator[None]:
    """While the body runs, keys come one by one and are not shown."""
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def pressed() -> None:
        keys = os.read(fd, 64)
        if not keys or b"q" in keys or b"Q" in keys:
            leaving.set()
            loop.remove_reader(fd)

    tty.setcbreak(fd)
    loop.add_reader(fd, pressed)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _console(call: Invocation) -> Console:
    from rich.console import Console

    screen = call.screen
    if screen.fancy:
        return Console(file=screen.out, highlight=False)
    return Console(file=screen.out, width=screen.size[0], no_color=True, force_terminal=False, highlight=False)


def _title(call: Invocation) -> str:
    from worker.settings.masking import masked_url

    return masked_url(call.settings().queue_url) or "embedded queue"
