"""Several worker processes under one: restarted when they die, replaced when they grow, reloaded and drained together.

| signal             | what the supervisor does                                                                  |
|--------------------|-------------------------------------------------------------------------------------------|
| SIGTERM, SIGINT    | all drain; a second one: all hand their tasks back at once; a third one: all are killed   |
| SIGHUP             | rolling reload: start one anew, wait until it is ready, drain the old one; then the next  |

Each process learns of the supervisor's own death by the end of its line (`worker.fleet.link`) and drains.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog
from msgspec import Struct

from worker.errors import BadSetting
from worker.fleet.child import Child, within
from worker.fleet.hangup import on_hangup
from worker.fleet.slot import Slot, Timing

OK = 0
KILLED = 1
WRONG_SETTINGS = 2
"""With this code a process says that starting it again cannot help."""

log = structlog.get_logger(__name__)


class Plan(Struct, frozen=True, kw_only=True):
    """What the settings ask of a fleet."""

    processes: int = 1
    grace_s: float = 30.0
    """What a process takes for itself to drain."""
    max_memory_bytes: int = 0
    """Resident memory of one process above which it is replaced; 0: no limit."""
    health_port: int = 0
    """Of the first process; the others' count up from it. 0: any free one."""

    @property
    def health_ports(self) -> list[int]:
        """The port of each process, 0 for any free one."""
        return [self.health_port + index if self.health_port else 0 for index in range(self.processes)]


class Supervisor:
    """Runs `command(index, plan)` for each of the plan's processes. `replan` reads the settings anew for a reload."""

    def __init__(
        self,
        plan: Plan,
        command: Callable[[int, Plan], Sequence[str]],
        replan: Callable[[], Plan],
        *,
        timing: Timing | None = None,
    ) -> None:
        self._plan = plan
        self._command = command
        self._replan = replan
        self._timing = timing or Timing()
        self._slots: dict[int, Slot] = {}
        self._keeping: set[asyncio.Task[None]] = set()
        self._children: set[Child] = set()
        self._stopping = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self._generation = 0
        self._stops = 0
        self._decided = asyncio.Event()
        """A process has been ready, so the settings are not what is wrong; or the fleet stops."""
        self._code = OK
        self._tasks = asyncio.TaskGroup()

    async def run(self) -> int:
        """Work until stopped, or until an operator has drained every process; return an exit code.

        0 after a drain, 1 if a process had to be killed, 2 if the processes say that their settings are wrong.
        """
        log.info("fleet started", pid=os.getpid(), processes=self._plan.processes, health_ports=self._plan.health_ports)
        with self._signals():
            async with self._tasks:
                side = [
                    self._tasks.create_task(self._watch_memory(), name="memory ceiling"),
                    self._tasks.create_task(self._reload_on_request(), name="rolling reload"),
                ]
                try:
                    await self._start_all()
                    while self._keeping:
                        await asyncio.wait(self._keeping, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in side:
                        task.cancel()
        log.info("fleet stopped", exit_code=self._code)
        return self._code

    # Starting

    async def _start_all(self) -> None:
        """The first one goes ahead: what keeps it from starting would keep them all, and shall be said once."""
        self._add_slots(1)
        await within(self._timing.ahead_s, self._decided.wait())
        if not self._stopping.is_set():
            self._add_slots(self._plan.processes)

    def _add_slots(self, up_to: int) -> None:
        for index in range(up_to):
            if index not in self._slots:
                slot = self._slots[index] = Slot(index, self._launch, self._stopping, self._timing)
                task = self._tasks.create_task(self._keep(slot), name=f"process {index}")
                self._keeping.add(task)
                task.add_done_callback(self._keeping.discard)

    async def _keep(self, slot: Slot) -> None:
        try:
            await slot.keep()
        finally:
            del self._slots[slot.index]

    async def _launch(self, index: int) -> Child:
        generation = self._generation
        child = await Child.start(self._command(index, self._plan))
        child.generation = generation
        self._children.add(child)
        self._tasks.create_task(self._watch(child), name=f"watch {child.pid}")
        if self._stopping.is_set():  # while it was being started
            self._drain(child)
        return child

    async def _watch(self, child: Child) -> None:
        try:
            await child.watch(self._heard)
        finally:
            self._children.discard(child)
        if child.was_killed:
            self._code = max(self._code, KILLED)
        if child.code == WRONG_SETTINGS and not self._decided.is_set():
            self._code = WRONG_SETTINGS
            self.stop()

    def _heard(self, child: Child) -> None:
        if child.is_ready:
            self._decided.set()
        if child.was_drained:
            self._drain(child)  # by itself; this sees to it that it ends in time

    # Ending

    def stop(self) -> None:
        """The first call drains all processes, the second one makes them hand back everything, the third kills."""
        self._stops += 1
        self._stopping.set()
        self._decided.set()
        for child in list(self._children):
            if self._stops == 1:
                self._drain(child)
            elif self._stops == 2:
                child.hurry()
            else:
                child.kill()

    def _drain(self, child: Child) -> None:
        self._tasks.create_task(child.leave(self._limit_s), name=f"drain {child.pid}")

    @property
    def _limit_s(self) -> float:
        return self._plan.grace_s + self._timing.kill_after_s

    # Signals

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """While the body runs, signals are for the fleet instead of this process."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self._told, number.name)
        with on_hangup(loop, reload=self._reload_wanted.set, stop=functools.partial(self._told, "SIGHUP")):
            try:
                yield
            finally:
                for number in numbers:
                    loop.remove_signal_handler(number)

    def _told(self, name: str) -> None:
        messages = ("all processes drain", "all processes hand their tasks back at once", "all processes are killed")
        log.info(messages[min(self._stops, 2)], signal=name, processes=len(self._children))
        self.stop()

    # Replacing

    async def _reload_on_request(self) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            await self._decided.wait()
            await self._reload()

    async def _reload(self) -> None:
        before, after = self._plan, self._new_plan()
        if after is None:
            return
        self._plan = after
        self._generation += 1
        log.info("rolling reload", processes=after.processes, health_ports=after.health_ports)
        for slot in sorted(self._slots.values(), key=lambda slot: slot.index)[: after.processes]:
            if not await self._renew(slot):
                self._plan = before
                log.error("reload stopped: a new process did not become ready; the old ones stay as they are")
                return
            if self._stopping.is_set():
                return
        self._add_slots(after.processes)
        for slot in [slot for slot in self._slots.values() if slot.index >= after.processes]:
            slot.retired = True
            if slot.child:
                await slot.child.leave(self._limit_s)
        log.info("reloaded", processes=after.processes)

    async def _renew(self, slot: Slot) -> bool:
        """See to it that the slot's process has the present settings. False: a new one did not become ready."""
        while (child := slot.child) and child.generation < self._generation and not child.is_leaving:
            if not await slot.replace(child, limit_s=self._limit_s):
                return False
            if self._stopping.is_set():
                break
        return True

    def _new_plan(self) -> Plan | None:
        problem = ""
        try:
            return self._replan()
        except BadSetting as error:
            problem = str(error)
        log.error("reload refused: the settings cannot be used; the running processes stay as they are", error=problem)
        return None

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(self._timing.memory_every_s)
            limit = self._plan.max_memory_bytes
            for slot in list(self._slots.values()) if limit else ():
                child = slot.child
                if child and child.is_ready and not child.is_leaving and child.rss_bytes > limit and slot.is_due():
                    log.warning(
                        "worker process is over its memory ceiling and is replaced",
                        pid=child.pid,
                        rss_mb=child.rss_bytes >> 20,
                        max_memory_mb=limit >> 20,
                    )
                    self._tasks.create_task(self._replace(slot, child), name=f"replace {child.pid}")

    async def _replace(self, slot: Slot, child: Child) -> None:
        if not await slot.replace(child, limit_s=self._limit_s):
            log.error("the replacement did not become ready; the old process stays", pid=child.pid)
