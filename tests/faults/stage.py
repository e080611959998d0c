"""Everything that a run needs, as real processes: broker, provider, tools, and workers behind proxies."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from queue_backends import BackendOptions
from tests.faults.brokers.broker import Broker
from tests.faults.loopback import Program
from tests.faults.worker_slot import WorkerSlot
from tests.faults.worker_tools import DIARY_VARIABLE
from tests.proxies import Proxy
from tests.servers import fresh_stream

PRICES = {"fake-1": {"input_usd": 1.0, "output_usd": 2.0}}
STEP_SCHEMA = {
    "type": "object",
    "properties": {"key": {"type": "string"}, "step": {"type": "string"}, "hold_s": {"type": "number"}},
    "required": ["key", "step", "hold_s"],
}


class Stage:
    """The processes and where they leave their traces."""

    def __init__(
        self,
        folder: Path,
        broker: Broker,
        queue: str,
        clients: Proxy | None,
        slots: Sequence[WorkerSlot],
        options: BackendOptions,
    ) -> None:
        self.folder = folder
        self.broker = broker
        self.queue = queue
        self.slots = slots
        self.options = options
        self._clients = clients

    @property
    def clients(self) -> Proxy:
        """The engine's and the consumers' way to the broker."""
        if self._clients is None:
            raise RuntimeError("this engine's clients cannot be put behind a proxy: leave faults of the network out")
        return self._clients

    @property
    def url(self) -> str:
        """The queue as the engine and the consumers reach it, through faults."""
        return self.broker.url(self.queue, self._clients.port if self._clients else 0)

    @property
    def quiet_url(self) -> str:
        """The queue as one reaches it whom no fault is meant for."""
        return self.broker.url(self.queue)

    @property
    def calls_diary(self) -> Path:
        """What the provider noted."""
        return self.folder / "calls.jsonl"

    @property
    def effect_diaries(self) -> tuple[Path, ...]:
        """What the tools noted."""
        return (self.folder / "webhooks.jsonl", self.folder / "effects.jsonl")

    async def restart_broker(self, number: signal.Signals, away_s: float) -> None:
        """End the broker, and start it again on the same data after `away_s`."""
        await asyncio.to_thread(self.broker.kill if number is signal.SIGKILL else self.broker.stop)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(self.broker.start)

    async def stop_workers(self) -> None:
        """Let all workers drain."""
        for slot in self.slots:
            slot.signal(signal.SIGCONT)
            slot.signal(signal.SIGTERM)
        codes = await asyncio.gather(*(slot.ended() for slot in self.slots))
        for slot, code in zip(self.slots, codes, strict=True):
            if code:
                slot.died("was told to end by SIGTERM", code)


@contextlib.asynccontextmanager
async def stage(
    folder: Path, engine: Callable[[], Broker], *, workers: int, concurrency: int, lease_s: float
) -> AsyncIterator[Stage]:
    """Start everything; on exit, end everything. Raises `RuntimeError` if the engine is not on this machine."""
    options = BackendOptions(lease_s=lease_s, max_deliveries=100, chunk_retention_s=4 * 3600)
    queue = fresh_stream()
    async with contextlib.AsyncExitStack() as stack:
        broker = engine()
        stack.callback(broker.close)
        await asyncio.to_thread(broker.start)
        model = stack.enter_context(Program("tests.faults.model_server", str(folder / "calls.jsonl")))
        tools = stack.enter_context(Program("tests.faults.tool_server", str(folder / "webhooks.jsonl")))
        settings = _settings(model.port, tools.port, options, concurrency)
        environ = {DIARY_VARIABLE: str(folder / "effects.jsonl")}
        slots = []
        for number in range(workers):
            proxy = await _proxy(stack, broker)
            url = broker.url(queue, proxy.port if proxy else 0)
            slot = WorkerSlot(number, proxy, url, folder, settings, environ)
            stack.push_async_callback(slot.close)
            slots.append(slot)
        clients = await _proxy(stack, broker)
        for slot in slots:
            await slot.start()
        yield Stage(folder, broker, queue, clients, slots, options)


async def _proxy(stack: contextlib.AsyncExitStack, broker: Broker) -> Proxy | None:
    return await stack.enter_async_context(Proxy(broker.port)) if broker.port else None


def _settings(model_port: int, tools_port: int, options: BackendOptions, concurrency: int) -> dict[str, Any]:
    webhooks = [
        {
            "name": name,
            "url": f"http://127.0.0.1:{tools_port}/{name}",
            "input_schema": STEP_SCHEMA,
            "idempotent": name == "look",
            "timeout_s": 20,
        }
        for name in ("pay", "look")
    ]
    return {
        "agent": {
            "model": "fake-1",
            "provider": "openai",
            "base_url": f"http://127.0.0.1:{model_port}/v1",
            "idle_timeout_s": 3,
            "first_event_timeout_s": 10,
        },
        "agents": {"somebody": {}},
        "backend": {
            "lease_s": options.lease_s,
            "max_deliveries": options.max_deliveries,
            "chunk_retention_s": options.chunk_retention_s,
        },
        "webhook_tools": webhooks,
        "python_tools": ["tests.faults.worker_tools"],
        "prices": PRICES,
        "concurrency": concurrency,
        "timeout_s": 120,
        "max_retries": 50,
        "retry_base_s": 0.2,
        "retry_max_s": 1,
        "grace_s": 1,
        "health_port": 0,
        "log_level": "info",
        "log_format": "json",
    }
