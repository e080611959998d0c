"""What a person types while something else goes on: lines, or single keys. Nothing here blocks the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator

_MOST_BYTES = 4096


def is_interactive() -> bool:
    """Whether somebody sits there who can answer: at stdin, and seeing stderr."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


async def read_line() -> str | None:
    """The next line; None at the end of the input."""
    loop = asyncio.get_running_loop()
    fd, done = sys.stdin.fileno(), loop.create_future()
    text = bytearray()

    def readable() -> None:
        read = os.read(fd, _MOST_BYTES)
        text.extend(read)
        if (not read or b"\n" in text) and not done.done():
            done.set_result(None)

    loop.add_reader(fd, readable)
    try:
        await done
    finally:
        loop.remove_reader(fd)
    return text.decode(errors="replace").partition("\n")[0] if text else None


@contextlib.contextmanager
def keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """While the body runs, each key is told to `pressed` at once, and is not shown. Ctrl-C stays what it is."""
    import termios
    import tty

    loop, fd = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def readable() -> None:
        read = os.read(fd, 64)
        if not read:
            loop.remove_reader(fd)
        for key in read.decode(errors="ignore"):
            pressed(key)

    tty.setcbreak(fd)
    loop.add_reader(fd, readable)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
