"""What runs can do beside asking a model: call tools, search, delegate to teams, look at what they have done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct

from providers.transport import Transport
from queue_backends import Backend, StateStore
from worker.agents.roster import DEFAULT_NAME
from worker.assembly.declared import Declared
from worker.assembly.models import Models
from worker.assembly.records import Records
from worker.datasources.datasources import Datasources
from worker.datasources.tool import DatasourceTools
from worker.loop_policy.places import FindingSettings
from worker.loop_policy.policies import LoopPolicies
from worker.remote_providers import RemoteActions
from worker.settings import Settings
from worker.teams.assembly import team_work
from worker.teams.notify.degradation import Degradation
from worker.teams.notify.service import Notifications
from worker.teams.team_work import TeamWork
from worker.tools.build import build_catalogue
from worker.tools.catalogue import ToolCatalogue
from worker.tools.mcp import OnLongAway
from worker.tools.shared_folders import SharedFolders


class Abilities(Struct, frozen=True, kw_only=True):
    """What runs can do beside asking a model."""

    datasources: Datasources
    tools: ToolCatalogue
    teams: TeamWork
    loop_policies: LoopPolicies


@asynccontextmanager
async def open_abilities(
    settings: Settings,
    backend: Backend,
    declared: Declared,
    models: Models,
    records: Records,
    http: Transport,
    folders: SharedFolders,
) -> AsyncIterator[Abilities]:
    """While entered, tool servers are connected; `folders` is where they may write files. `http` stays the caller's to
    close.

    Raises `BadSetting` for tools of the same name, `ToolSetupFailed` for a Python tool that cannot be loaded.
    """
    async with AsyncExitStack() as stack:
        datasources = Datasources(declared.definitions, backend.state, models.embeddings)
        stack.push_async_callback(datasources.aclose)
        searches = DatasourceTools(declared.definitions, datasources)
        stack.callback(searches.close)
        tools = build_catalogue(
            http,
            mcp_servers=settings.mcp_servers,
            webhook_tools=settings.webhook_tools,
            python_tools=settings.python_tools,
            with_outputs=settings.max_stored_output_chars > 0,
            with_artifacts=settings.artifacts.tools,
            team_routes=settings.team_routes,
            servers=[RemoteActions(models.remote), searches],
            on_long_away=_telling(settings, backend.state),
            folders=folders,
        )
        await stack.enter_async_context(tools)
        teams = await stack.enter_async_context(
            team_work(settings, backend, declared.runs, http, models.embeddings, folders)
        )
        loop_policies = _loop_policies(settings, backend.state, models, records)
        stack.push_async_callback(loop_policies.aclose)
        yield Abilities(datasources=datasources, tools=tools, teams=teams, loop_policies=loop_policies)


def _loop_policies(settings: Settings, state: StateStore, models: Models, records: Records) -> LoopPolicies:
    findings = FindingSettings(
        url=settings.vector_store_url,
        embedding_provider=settings.embedding_provider,
        embedding_model=settings.embedding_model,
    )
    return LoopPolicies(state, models.embeddings, models.providers, records.metrics.loop_policy, findings)


def _telling(settings: Settings, state: StateStore) -> OnLongAway:
    """Who hears that a tool server of all agents has been away for long: notification policies."""
    notifications = Notifications(state)

    async def tell(server: str, reason: str) -> None:
        agent = settings.agent_name or DEFAULT_NAME
        await notifications.on_degraded(Degradation(agent=agent, cause=f'MCP server "{server}"', reason=reason))

    return tell
