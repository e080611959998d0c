"""Why and how the worker of this process leaves.

| what happens                  | what the worker does                                                            |
|-------------------------------|---------------------------------------------------------------------------------|
| SIGTERM, SIGINT               | drains: no new task, running ones within the grace period, the rest handed back |
| a second one                  | hands everything back at once                                                   |
| a third one                   | nothing: the system ends the process                                            |
| `shoal drain`                 | drains, and its supervisor does not start it again                              |
| SIGHUP                        | drains, and the process starts anew; under a supervisor that is its affair      |
| its supervisor has gone       | drains                                                                          |
| its terminal has gone         | drains                                                                          |
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

import structlog

from worker.errors import BadSetting
from worker.fleet.hangup import on_hangup
from worker.fleet.link import DRAINING, SupervisorLink
from worker.fleet.presence import DrainRequest

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger(__name__)


class Departure:
    """Turns signals and requests into `drain` and `hurry`.

    `check` raises `BadSetting` if the settings, read anew, would not do: then SIGHUP changes nothing.
    """

    def __init__(
        self,
        link: SupervisorLink,
        *,
        drain: Callable[[], object],
        hurry: Callable[[], object],
        check: Callable[[], object] | None = None,
    ) -> None:
        self.starts_anew = False
        """The process shall be replaced by a fresh one."""
        self._link = link
        self._drain = drain
        self._hurry = hurry
        self._check = check
        self._signals: list[signal.Signals] = []

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """While the body runs, signals mean what the table above says."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._told, number)
        with on_hangup(loop, reload=self._reload, stop=lambda: self._told(signal.SIGHUP)):
            try:
                yield
            finally:
                for number in _SIGNALS:
                    loop.remove_signal_handler(number)

    def requested(self, request: DrainRequest) -> None:
        """An operator asks the worker to leave."""
        log.info("shutting down", reason="shoal drain", by=request.by)
        self._link.say(DRAINING)
        self._drain()

    async def with_supervisor(self) -> None:
        """Drain when the supervisor has gone. Runs until then."""
        await self._link.lost()
        log.warning("shutting down: the supervisor has gone")
        self._drain()

    def _told(self, number: signal.Signals) -> None:
        if self._link.is_supervised and number in self._signals:
            return  # an init system may tell the whole group what the supervisor passes on too
        self._signals.append(number)
        if len(self._signals) == 1:
            log.info("shutting down", signal=number.name)
            self._drain()
            return
        log.info("shutting down at once", signal=number.name)
        loop = asyncio.get_running_loop()
        for each in _SIGNALS:  # a third one ends the process, whatever the loop does
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        self._hurry()

    def _reload(self) -> None:
        if self._link.is_supervised:
            log.info("SIGHUP is for the supervisor, which starts its processes anew")
            return
        try:
            if self._check:
                self._check()
        except BadSetting as error:
            problem = str(error)
        else:
            log.info("starting anew: no new task is taken until then", signal="SIGHUP")
            self.starts_anew = True
            self._drain()
            return
        log.error("reload refused: the settings cannot be used; the worker goes on as it is", error=problem)
