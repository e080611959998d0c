"""A worker on the scripted provider, and talk with it: what tests of conversations share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import msgspec

from providers import AgentConfig, Message, ToolCall, ToolOutcome, TurnEvent, TurnRequest, register
from providers.scripted import ScriptedProvider
from queue_backends import Backend, StateStore, Task, TaskResult, open_backend
from queue_backends.interfaces import BackendOptions
from worker.agents.model import Agent, Memory
from worker.assembly import open_worker
from worker.definitions import Definitions
from worker.sessions.conversation_log import Exchange, exchanges_of, log_name, read_records
from worker.settings import Settings

WITHIN_S = 30.0
ECHO = {"scenarios": [{"turns": [{"text": "echo {prompt}"}]}]}


def settings_with(script: Mapping[str, Any] = ECHO, **changes: Any) -> Settings:
    """Settings of a worker whose agent says what the script has it say."""
    agent = AgentConfig(model="mock", provider="scripted", options={"script": dict(script)})
    return Settings(agent=agent, retry_base_s=0.01, health_port=0, **changes)


@asynccontextmanager
async def talking(settings: Settings, url: str = "memory://") -> AsyncIterator[Backend]:
    """A backend with a worker at work."""
    async with await open_backend(url, BackendOptions()) as backend, open_worker(settings, backend):
        yield backend


async def say(backend: Backend, prompt: str, conversation: str = "c1", **fields: Any) -> TaskResult:
    """Ask something and wait for the answer."""
    task_id = await backend.queue.submit(Task(prompt=prompt, conversation_id=conversation, **fields))
    return await backend.queue.wait(task_id, WITHIN_S)


async def kept(state: StateStore, conversation: str = "c1", tenant: str = "") -> list[Exchange]:
    """What is kept of a conversation."""
    return exchanges_of(read_records(await state.read_log(log_name(tenant, conversation), limit=1000)))


async def declare_agent(backend: Backend, slug: str, script: Mapping[str, Any], **memory: Any) -> None:
    """Declare an agent with a script, and with these limits of its memory; wait until the worker knows of it."""
    register("overheard", Overheard)
    agent = Agent(
        slug=slug,
        provider="overheard",
        model="mock",
        settings={"options": {"script": dict(script)}},
        memory=msgspec.convert(memory, Memory),
    )
    await Definitions(backend.state).agents.create(agent)

    async def is_known() -> bool:
        task_id = await backend.queue.submit(Task(prompt="are you there?", agent=slug))
        await backend.queue.wait(task_id, WITHIN_S)
        return task_id in Overheard.requests

    await until(is_known)


def texts(messages: tuple[Message, ...] | list[Message]) -> list[str]:
    """What each message says, in short."""
    return ["+".join(_short(part) for part in message.parts) for message in messages]


def _short(part: Any) -> str:
    if isinstance(part, ToolCall):
        return f"call:{part.name}"
    if isinstance(part, ToolOutcome):
        return f"outcome:{part.content}"
    return str(getattr(part, "text", ""))


class Overheard(ScriptedProvider):
    """A scripted provider that notes what it is asked, by task."""

    name = "overheard"
    requests: ClassVar[dict[str, TurnRequest]] = {}

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """The script's turn."""
        self.requests[request.task_id] = request
        async for event in super().stream_turn(request):
            yield event


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that nothing announces."""
    async with asyncio.timeout(WITHIN_S):
        while not await is_so():
            await asyncio.sleep(0.02)
