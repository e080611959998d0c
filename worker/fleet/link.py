"""The line between a supervisor and each of its processes: a socket pair, one end inherited by the process.

Upwards go two words, one a line: `ready`, once the process works, and `draining`, when an operator has asked it to
leave, so that it is not started again. Downwards nothing is ever sent: the line's end is the message. The kernel closes
it when the supervisor ends, kill -9 included, and the process then drains as on SIGTERM instead of living on for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import MutableMapping
from typing import Self

VARIABLE = "SHOAL_SUPERVISOR_FD"
"""Names the inherited end. It is taken out of the environment at once: children of the process shall not see it."""
READY = b"ready"
DRAINING = b"draining"


class SupervisorLink:
    """The process' end of the line. Without a supervisor nobody hears what is said, and the line never ends."""

    def __init__(self, connection: socket.socket | None = None) -> None:
        self._connection = connection

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Self:
        """The line to the supervisor that started this process, if one did."""
        number = environ.pop(VARIABLE, "")
        if not number.isdigit():
            return cls()
        try:
            connection = socket.socket(fileno=int(number))
        except OSError:
            return cls()  # not ours: the descriptor was closed on the way
        connection.set_inheritable(False)
        connection.setblocking(False)
        return cls(connection)

    @property
    def is_supervised(self) -> bool:
        """Whether a supervisor started this process."""
        return self._connection is not None

    def say(self, word: bytes) -> None:
        """Tell the supervisor; one that is gone is no error."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.send(word + b"\n")

    async def lost(self) -> None:
        """Return once the supervisor is gone."""
        if self._connection is None:
            await asyncio.Event().wait()  # for ever, until it is cancelled
            return
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while await loop.sock_recv(self._connection, 64):
                continue  # nothing is sent this way today

    def close(self) -> None:
        """Give up this end; the supervisor then waits for the process' end."""
        if self._connection is not None:
            self._connection.close()
