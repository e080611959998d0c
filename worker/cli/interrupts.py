"""Ctrl-C, once and again, and the other signals that end a run's process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator


class Interrupts:
    """What the user wants: first that the run ends, then that the process does."""

    def __init__(self) -> None:
        self.cancel = asyncio.Event()
        """The first Ctrl-C: end the run in good order."""
        self.quit = asyncio.Event()
        """The second one, SIGTERM or SIGHUP: leave at once; the run can be resumed."""

    def interrupted(self) -> None:
        """Ctrl-C."""
        (self.quit if self.cancel.is_set() else self.cancel).set()

    @property
    def is_set(self) -> bool:
        """Whether anything was asked for."""
        return self.cancel.is_set() or self.quit.is_set()


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Hears the signals while the body runs."""
    loop, asked = asyncio.get_running_loop(), Interrupts()
    handlers = {signal.SIGINT: asked.interrupted, signal.SIGTERM: asked.quit.set, signal.SIGHUP: asked.quit.set}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield asked
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
