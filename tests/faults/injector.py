"""Carries a schedule out, and notes what was really done, when, and to which worker."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable

import redis.asyncio

from tests.faults.diaries import Injected
from tests.faults.schedule import MACHINE_FAULTS, WORKER_FAULTS, Fault, FaultKind, Schedule
from tests.faults.stage import Stage
from tests.faults.worker_slot import WorkerSlot

PACKET_DELAY_S = 0.05
USAGE_IS_WRITTEN = b":state:counters:usage:index"
"""Only scripts that store a finished model call name this key."""


class Injector:
    """Injects the faults of one schedule into one stage."""

    def __init__(self, stage: Stage, schedule: Schedule) -> None:
        self._stage = stage
        self._schedule = schedule
        self._redis = asyncio.Lock()
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
            async with self._redis:
                await self._noted(fault, "redis", lambda: self._to_redis(fault))

    async def _inject_machine(self, fault: Fault) -> None:
        async with contextlib.AsyncExitStack() as locks:
            await locks.enter_async_context(self._redis)
            for slot in self._stage.slots:
                await locks.enter_async_context(slot.lock)
                await slot.is_up()
            await self._noted(fault, "all", lambda: self._to_machine(fault))

    async def _noted(self, fault: Fault, target: str, action: Callable[[], Awaitable[None]]) -> None:
        at = time.time()
        await action()
        self.done.append(Injected(at=at, until=time.time(), kind=fault.kind.value, target=target))

    async def _to_worker(self, fault: Fault, slot: WorkerSlot) -> None:
        proxy = slot.proxy
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
                proxy.cut()
            case FaultKind.STRAND:
                proxy.strand()
            case FaultKind.PARTITION:
                proxy.silence()
                await asyncio.sleep(fault.seconds)
                proxy.heal()
                proxy.cut()
            case FaultKind.DELAY:
                proxy.delay_s = PACKET_DELAY_S
                await asyncio.sleep(fault.seconds)
                proxy.delay_s = 0.0
            case FaultKind.LOST_REPLY:
                proxy.lose_reply(b"EVALSHA")
            case FaultKind.LOST_COMMIT:
                proxy.lose_reply(USAGE_IS_WRITTEN)
            case _:
                raise AssertionError(f"{fault.kind} is no worker's fault")

    async def _to_machine(self, fault: Fault) -> None:
        stage = self._stage
        if fault.kind is FaultKind.SLEEP:
            stage.server.freeze()
            for slot in stage.slots:
                slot.signal(signal.SIGSTOP)
            await asyncio.sleep(fault.seconds)
            stage.server.thaw()
            for slot in stage.slots:
                slot.signal(signal.SIGCONT)
            return
        for slot in stage.slots:
            slot.signal(signal.SIGKILL)
        await stage.restart_redis(signal.SIGKILL, fault.seconds)
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

    async def _to_redis(self, fault: Fault) -> None:
        stage = self._stage
        match fault.kind:
            case FaultKind.REDIS_RESTART:
                await stage.restart_redis(signal.SIGTERM, fault.seconds)
            case FaultKind.REDIS_CRASH | FaultKind.REDIS_OUTAGE:
                await stage.restart_redis(signal.SIGKILL, fault.seconds)
            case FaultKind.REDIS_HANG:
                stage.server.freeze()
                await asyncio.sleep(fault.seconds)
                stage.server.thaw()
            case FaultKind.SCRIPTS_FORGOTTEN:
                await self._forget_scripts()
            case _:
                raise AssertionError(f"{fault.kind} is not Redis'")

    async def _forget_scripts(self) -> None:
        client = redis.asyncio.Redis(port=self._stage.server.port)
        try:
            await client.script_flush()
        finally:
            await client.aclose()
