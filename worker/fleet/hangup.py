"""SIGHUP means two things: "read your settings anew", and "your terminal is gone"."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STDIN = 0


@contextmanager
def on_hangup(
    loop: asyncio.AbstractEventLoop, *, reload: Callable[[], object], stop: Callable[[], object]
) -> Iterator[None]:
    """While the body runs, SIGHUP calls `reload`, or `stop` if the terminal that the process was started on has gone.

    Under `nohup`, which makes the process ignore the signal, it stays ignored.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        yield
        return
    had_terminal = os.isatty(_STDIN)

    def handle() -> None:
        if had_terminal and not os.isatty(_STDIN):
            stop()
        else:
            reload()

    loop.add_signal_handler(signal.SIGHUP, handle)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
