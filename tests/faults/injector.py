"""Carries a schedule out, and notes what was really done, when, and to which worker."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable

from tests.faults.diaries import Injected
from tests.faults.schedule import MACHINE_FAULTS, WORKER_FAULTS, Fault, FaultKind, Schedule
from tests.faults.stage import Stage
from tests.faults.worker_slot import WorkerSlot

PACKET_DELAY_S = 0.05


class Injector:
    """Injects the faults of one schedule into one stage."""

    def __init__(self, stage: Stage, schedule: Schedule) -> None:
        self._stage = stage
        self._schedule = schedule
        self._broker = asyncio.Lock()
        self.done: list[Injected] = []

    async def run(self) -> None:
        """Inject every fault at its time, or as soon after it as its target is free. Returns when all are over."""
        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in self._schedule.faults:
                await asyncio.sleep(start + fault.at_s - time.monotonic())
                group.create_task(self._inject(fault), name=str(fault))

    async def _inject(self, fault: Fault) -> None:
        if fault.kind in WORKER_FAULTS:
            slot = self._stage.slots[fault.slot]
            async with slot.lock:
                await slot.is_up()
                await self._noted(fault, slot.name, lambda: self._to_worker(fault, slot))
        elif fault.kind in MACHINE_FAULTS:
            await self._inject_machine(fault)
        elif fault.kind is FaultKind.CLIENT_CUT:
            await self._noted(fault, "clients", self._cut_clients)
        else:
            async with self._broker:
                await self._noted(fault, "broker", lambda: self._to_broker(fault))
                if fault.kind is FaultKind.FAILOVER:
                    await asyncio.sleep(fault.seconds)
                    await asyncio.to_thread(self._stage.broker.bring_back)

    async def _inject_machine(self, fault: Fault) -> None:
        async with contextlib.AsyncExitStack() as locks:
            await locks.enter_async_context(self._broker)
            for slot in self._stage.slots:
                await locks.enter_async_context(slot.lock)
                await slot.is_up()
            await self._noted(fault, "all", lambda: self._to_machine(fault))

    async def _noted(self, fault: Fault, target: str, action: Callable[[], Awaitable[None]]) -> None:
        at = time.time()
        await action()
        self.done.append(Injected(at=at, until=time.time(), kind=fault.kind.value, target=target))

    async def _to_worker(self, fault: Fault, slot: WorkerSlot) -> None:
        match fault.kind:
            case FaultKind.KILL:
                await self._replace(slot, signal.SIGKILL, fault.seconds)
            case FaultKind.DRAIN:
                await self._replace(slot, signal.SIGTERM, fault.seconds)
            case FaultKind.STOP | FaultKind.HICCUP:
                slot.signal(signal.SIGSTOP)
                await asyncio.sleep(fault.seconds)
                slot.signal(signal.SIGCONT)
            case FaultKind.CUT:
                slot.proxy.cut()
            case FaultKind.STRAND:
                slot.proxy.strand()
            case FaultKind.PARTITION:
                slot.proxy.silence()
                await asyncio.sleep(fault.seconds)
                slot.proxy.heal()
                slot.proxy.cut()
            case FaultKind.DELAY:
                slot.proxy.delay_s = PACKET_DELAY_S
                await asyncio.sleep(fault.seconds)
                slot.proxy.delay_s = 0.0
            case FaultKind.LOST_REPLY:
                slot.proxy.lose_reply(self._stage.broker.request)
            case FaultKind.LOST_COMMIT:
                slot.proxy.lose_reply(self._stage.broker.commit)
            case _:
                raise AssertionError(f"{fault.kind} is no worker's fault")

    async def _to_machine(self, fault: Fault) -> None:
        stage = self._stage
        if fault.kind is FaultKind.SLEEP:
            stage.broker.freeze()
            for slot in stage.slots:
                slot.signal(signal.SIGSTOP)
            await asyncio.sleep(fault.seconds)
            stage.broker.thaw()
            for slot in stage.slots:
                slot.signal(signal.SIGCONT)
            return
        for slot in stage.slots:
            slot.signal(signal.SIGKILL)
        await stage.restart_broker(signal.SIGKILL, fault.seconds)
        for slot in stage.slots:
            await slot.ended()
            await slot.start()

    async def _replace(self, slot: WorkerSlot, number: signal.Signals, away_s: float) -> None:
        slot.signal(number)
        code = await slot.ended()
        if code and number is signal.SIGTERM:
            slot.died("was told to end by SIGTERM", code)
        await asyncio.sleep(away_s)
        await slot.start()

    async def _cut_clients(self) -> None:
        self._stage.clients.cut()

    async def _to_broker(self, fault: Fault) -> None:
        stage, broker = self._stage, self._stage.broker
        match fault.kind:
            case FaultKind.BROKER_RESTART:
                await stage.restart_broker(signal.SIGTERM, fault.seconds)
            case FaultKind.BROKER_CRASH | FaultKind.BROKER_OUTAGE:
                await stage.restart_broker(signal.SIGKILL, fault.seconds)
            case FaultKind.BROKER_HANG:
                broker.freeze()
                await asyncio.sleep(fault.seconds)
                broker.thaw()
            case FaultKind.FAILOVER:
                await asyncio.to_thread(broker.fail_over)
            case FaultKind.USURPED:
                await asyncio.to_thread(broker.usurp)
                await asyncio.sleep(fault.seconds)
                await asyncio.to_thread(broker.bring_back)
            case FaultKind.BROKER_CUT:
                await asyncio.to_thread(broker.cut_all)
            case FaultKind.SCRIPTS_FORGOTTEN:
                await asyncio.to_thread(broker.forget_scripts)
            case _:
                raise AssertionError(f"{fault.kind} is not the broker's")
