"""What a plugin's process writes, in the worker's log."""

from __future__ import annotations

import asyncio
import time

from worker.agent_plugins.services import PluginLog

MOST_LINES_A_SECOND = 100
"""Of one stream; how many there were besides is said in their place."""
PAUSE_S = 0.02
"""Between two pieces of a flood: it is still taken, so that the process does not stand still, but not at any price."""
_MOST_CHARS = 2_000
_PIECE_BYTES = 64 * 1024


class OutputLog:
    """One stream of output: each line is a line of the plugin's log, as long as they are not too many."""

    def __init__(self, log: PluginLog, stream: str) -> None:
        self._log = log
        self._stream = stream
        self._rest = b""
        self._second = 0.0
        self._written = 0
        self._left_out = 0

    async def take_all(self, pipe: asyncio.StreamReader) -> None:
        """All output of a pipe, to its end."""
        try:
            while data := await pipe.read(_PIECE_BYTES):
                await self.take(data)
        finally:
            self.end()

    async def take(self, data: bytes) -> None:
        """Some more output."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MOST_CHARS:
            lines.append(self._rest[:_MOST_CHARS])
            self._rest = b""
        for line in lines:
            self._write(line)
        if self._written >= MOST_LINES_A_SECOND:
            await asyncio.sleep(PAUSE_S)

    def end(self) -> None:
        """There will be no more."""
        self._write(self._rest)
        self._rest = b""
        self._say_what_is_left_out()

    def _write(self, line: bytes) -> None:
        if not line or line.isspace():
            return
        if (now := time.monotonic()) - self._second >= 1:
            self._say_what_is_left_out()
            self._second, self._written = now, 0
        if self._written >= MOST_LINES_A_SECOND:
            self._left_out += 1
            return
        self._written += 1
        self._log.info(line.decode(errors="replace").strip()[:_MOST_CHARS], stream=self._stream)

    def _say_what_is_left_out(self) -> None:
        if self._left_out:
            self._log.warning("a plugin writes more than its log takes", stream=self._stream, lines=self._left_out)
            self._left_out = 0
