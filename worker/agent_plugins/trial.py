"""Try a plugin here and now: a worker in this process, on a queue of its own, with one agent of that plugin.

async with plugin_trial("my_plugin", script={"responses": {"": "an answer"}}) as bot:
    answer = await bot.ask("hello")
    assert answer.output == "<< an answer >>"
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from queue_backends import Chunk, ChunkType, Task, TaskResult, open_backend
from queue_backends.messages import JsonObject
from worker.agent_plugins.errors import BadPlugin
from worker.agent_plugins.manifest import MANIFEST_FILE
from worker.agent_plugins.package import manifest_folders
from worker.agents.model import Agent, App, Llm, PermissionScope

if TYPE_CHECKING:
    from worker.client import Fleet
    from worker.definitions import Definitions
    from worker.settings import Settings

AGENT = "trial"
APP = "trial-app"
LLM = "trial-model"
USUAL_LIMIT_S = 120.0


class TrialAnswer(Struct, frozen=True, kw_only=True):
    """What came of a message."""

    result: TaskResult
    chunks: tuple[Chunk, ...]

    @property
    def output(self) -> str:
        """The task's output; empty if it failed."""
        return self.result.output

    @property
    def error(self) -> str:
        """Why it failed; empty if it did not."""
        return self.result.error

    def said(self, kind: ChunkType | str = ChunkType.CONTENT) -> list[str]:
        """The contents of the chunks of a kind."""
        return [chunk.content for chunk in self.chunks if chunk.type == kind]


class Trial:
    """A plugin that can be asked."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    async def ask(
        self,
        message: str,
        *,
        history: Sequence[JsonObject] = (),
        session_id: str = "",
        limit_s: float = USUAL_LIMIT_S,
    ) -> TrialAnswer:
        """Send a message and wait for the answer. Raises `TimeoutError` if none comes within `limit_s`."""
        task = Task(prompt=message, agent=AGENT, history=tuple(history), session_id=session_id)
        handle = await self.fleet.submit(task)
        async with asyncio.timeout(limit_s):
            chunks = [chunk async for chunk in handle]
            return TrialAnswer(result=await handle.result(), chunks=tuple(chunks))


@asynccontextmanager
async def plugin_trial(
    path: str | Path,
    *,
    config: JsonObject | None = None,
    script: Any = None,
    tools: Sequence[str] = (),
    scopes: Sequence[PermissionScope] = tuple(PermissionScope),
    settings: Settings | None = None,
    has_llm: bool = True,
) -> AsyncIterator[Trial]:
    """A worker that runs the plugin in a folder (or in the one folder inside that has a manifest).

    `script` is what a scripted model answers; `settings` may name a real model instead, and must if there is no script.
    `tools` are Python tools, files or `module:name`. `scopes` are what the agent's app grants. Raises `BadPlugin`.
    """
    from worker.assembly import open_worker
    from worker.client import Fleet
    from worker.definitions import Definitions
    from worker.settings import load_settings

    folder = plugin_folder(path)
    chosen = settings or load_settings({}, file=None, overrides={"agent.model": "scripted"})
    if script is not None or settings is None:
        own = {} if script is None else {"script": script}
        chosen = replace(chosen, agent=replace(chosen.agent, provider="scripted", model="scripted", options=own))
    chosen = replace(chosen, python_tools=(*chosen.python_tools, *tools))
    async with AsyncExitStack() as stack:
        only = stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-plugin-"))
        (Path(only) / folder.name).symlink_to(folder, target_is_directory=True)
        backend = await stack.enter_async_context(await open_backend("memory://", chosen.backend))
        declared = await stack.enter_async_context(Definitions(backend.state))
        await _declare(declared, chosen, folder, config or {}, scopes, has_llm=has_llm)
        await stack.enter_async_context(open_worker(replace(chosen, agent_plugins_dir=only), backend))
        yield Trial(Fleet(backend))


async def _declare(
    declared: Definitions,
    settings: Settings,
    folder: Path,
    config: JsonObject,
    scopes: Sequence[PermissionScope],
    *,
    has_llm: bool,
) -> None:
    from worker.agent_plugins.package import read_package

    package = read_package(folder)
    package.schema.check(package.id, config)
    own = settings.agent
    if has_llm:
        llm = Llm(
            slug=LLM,
            provider=own.provider,
            model=own.model,
            route=own.route,
            base_url=own.base_url,
            api_key_env=own.api_key_env,
            options=own.options,
        )
        await declared.llms.create(llm)
        await declared.apps.create(App(slug=APP, llms=(LLM,), tools=("*",), scopes=tuple(scopes)))
    app = APP if has_llm else ""
    await declared.agents.create(
        Agent(slug=AGENT, plugin=package.id, app=app, config=config, system_prompt=own.system_prompt)
    )


def plugin_folder(path: str | Path) -> Path:
    """The folder of a plugin's manifest: the path itself, or the one folder in it that has one. Raises `BadPlugin`."""
    folder = Path(path)
    if folder.name == MANIFEST_FILE:
        folder = folder.parent
    inside = manifest_folders(folder)
    if len(inside) == 1:
        return inside[0].resolve()
    where = f"{len(inside)} folders in it have one: name one of them" if inside else "and no folder in it has one"
    raise BadPlugin(f"{folder} has no {MANIFEST_FILE}, {where}")
