"""What tests of data sources share: a process' worth of them, and providers whose embeddings tests decide."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from providers import AgentConfig, ChatProvider, ProviderError, TurnEvent, TurnRequest
from providers.scripted import ScriptedProvider
from queue_backends import Backend, open_backend, register_backend
from queue_backends.memory import open_backend as open_memory
from worker.call_gates import CallGate
from worker.datasources.datasources import Datasources
from worker.datasources.embeddings import Embeddings
from worker.definitions import Definitions
from worker.providers_in_use import ProvidersInUse
from worker.usage import UsageLedger


class Counting(ScriptedProvider):
    """Lexical vectors; notes what it was asked, and fails as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []
        self.failures: list[ProviderError] = []
        self.at_once = 0
        self.most_at_once = 0

    async def embed(self, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
        """As the scripted provider."""
        self.asked.append(list(texts))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            if self.failures:
                raise self.failures.pop(0)
            return await super().embed(config, texts)
        finally:
            self.at_once -= 1


class Speechless(ChatProvider):
    """A provider without embeddings."""

    name = "speechless"

    def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """Never asked."""
        raise NotImplementedError


class Process(NamedTuple):
    """One process that uses data sources."""

    backend: Backend
    definitions: Definitions
    datasources: Datasources
    provider: Counting


@asynccontextmanager
async def process(url: str = "memory://") -> AsyncIterator[Process]:
    """A process with a backend of its own."""
    register_backend("memory", open_memory)
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(await open_backend(url))
        yield await enter(stack, backend)


async def enter(stack: AsyncExitStack, backend: Backend, gates: Sequence[CallGate] = ()) -> Process:
    """A process on a backend that others use too; its vectors are made behind the gates."""
    definitions = await stack.enter_async_context(Definitions(backend.state))
    provider = Counting()
    made: dict[str, Callable[[], ChatProvider]] = {"speechless": Speechless}
    in_use = ProvidersInUse(create=lambda name: made.get(name, lambda: provider)())
    stack.push_async_callback(in_use.close)
    embeddings = Embeddings(in_use, backend.state, UsageLedger(), gates=gates)
    datasources = Datasources(definitions, backend.state, embeddings)
    stack.push_async_callback(datasources.aclose)
    return Process(backend, definitions, datasources, provider)
