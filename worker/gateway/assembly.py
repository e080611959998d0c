"""Where a gateway is put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from queue_backends import Backend
from worker.agent_plugins.registry import AgentPlugins
from worker.agents.declarations import Declarations
from worker.agents.roster import Roster
from worker.approvals.announcing import Announcing
from worker.approvals.waking import AnsweredTasks
from worker.artifacts import ArtifactStore
from worker.artifacts.opening import open_store
from worker.datasources.opening import open_datasources
from worker.definitions import Definitions
from worker.gateway.approval_desk import ApprovalDesk
from worker.gateway.callback_delivery import CallbackDelivery
from worker.gateway.callbacks import Callbacks
from worker.gateway.chunk_hub import ChunkHub
from worker.gateway.context import Gateway
from worker.gateway.ingress.model_access import ModelAccess
from worker.gateway.keys import ApiKeys
from worker.gateway.ops.room import OpsRoom
from worker.gateway.run_changes import RunChanges
from worker.gateway.run_hub import RunHub
from worker.gateway.trigger_desk import TriggerDesk
from worker.live_settings import LiveSettings
from worker.net_guard import NetGuard, guarded_transport
from worker.sealing import Sealer
from worker.sessions.assembly import sessions_of
from worker.sessions.watch import ChatWatch
from worker.settings import Settings
from worker.settings.artifacts import ArtifactSettings
from worker.teams.drivers import RunDrivers
from worker.teams.notify.delivery import NotifyDelivery
from worker.teams.notify.links import Links
from worker.teams.notify.service import Notifications
from worker.teams.run_spans import run_spans
from worker.teams.runs import Runs
from worker.teams.triggers.service import Triggers

if TYPE_CHECKING:
    from worker.gateway.oidc import Oidc


@asynccontextmanager
async def open_gateway(settings: Settings, backend: Backend) -> AsyncIterator[Gateway]:
    """All that the gateway's operations share, until the body ends. Raises `BackendUnavailable`."""
    async with AsyncExitStack() as stack:
        live = await stack.enter_async_context(LiveSettings(backend.state))
        definitions = await stack.enter_async_context(Definitions(backend.state))
        keys = await stack.enter_async_context(ApiKeys(backend.state))
        roster = Roster(settings, definitions)
        plugins = AgentPlugins.of(settings, definitions.plugins)
        runs = Runs.of(settings, backend.state)
        oidc = _oidc(settings, stack)
        notifications = Notifications(backend.state)
        guard = NetGuard(allowed=settings.allow_private_addresses)
        links = Links(settings.gateway.public_url)
        await stack.enter_async_context(NotifyDelivery(notifications.outbox, definitions, guard, links=links))
        triggers = Triggers(definitions, runs, roster, notifications=notifications)
        await stack.enter_async_context(triggers)
        spans = await stack.enter_async_context(run_spans())
        drivers = RunDrivers(backend, runs, on_end=triggers.on_run_end, spans=spans, most=settings.team_runs_at_once)
        await stack.enter_async_context(drivers)
        await stack.enter_async_context(Announcing(backend.state, settings.approval, guard))
        approvals = await stack.enter_async_context(ApprovalDesk(backend))
        run_changes = await stack.enter_async_context(RunChanges(runs))
        await stack.enter_async_context(AnsweredTasks(backend, approvals.store))
        yield Gateway(
            settings=settings,
            backend=backend,
            live=live,
            definitions=definitions,
            declarations=Declarations(definitions, settings=settings, live=live, plugins=plugins),
            plugins=plugins,
            roster=roster,
            keys=keys,
            oidc=oidc,
            hub=await stack.enter_async_context(ChunkHub(backend)),
            model_access=await stack.enter_async_context(ModelAccess(settings, backend, live, roster)),
            callbacks=await _callbacks(settings, backend, stack),
            datasources=await stack.enter_async_context(open_datasources(settings, backend.state, live, definitions)),
            sessions=sessions_of(settings, backend),
            chats=await stack.enter_async_context(ChatWatch(backend.state)),
            approvals=approvals,
            ops=await stack.enter_async_context(OpsRoom(settings, backend, live, definitions, approvals, run_changes)),
            notifications=notifications,
            trigger_desk=TriggerDesk(triggers, definitions, settings.gateway, keys, oidc),
            runs=runs,
            run_hub=await stack.enter_async_context(RunHub(runs)),
            run_changes=run_changes,
            artifacts=_artifacts(settings.artifacts, stack),
        )


def _oidc(settings: Settings, stack: AsyncExitStack) -> Oidc | None:
    gateway = settings.gateway
    if not gateway.oidc_issuer:
        return None
    from worker.gateway.issuer_keys import IssuerKeys
    from worker.gateway.oidc import Oidc

    http = guarded_transport(settings.allow_private_addresses)
    stack.push_async_callback(http.aclose)
    return Oidc(gateway, IssuerKeys(gateway.oidc_issuer, http, jwks_url=gateway.oidc_jwks_url))


def _artifacts(settings: ArtifactSettings, stack: AsyncExitStack) -> ArtifactStore | None:
    if not settings.store_url:
        return None
    store = open_store(settings.store_url, timeout_s=settings.timeout_s)
    stack.push_async_callback(store.aclose)
    return store


async def _callbacks(settings: Settings, backend: Backend, stack: AsyncExitStack) -> Callbacks:
    guard = NetGuard(allowed=settings.allow_private_addresses)
    callbacks = Callbacks(backend.state, guard, Sealer.from_environment())
    await stack.enter_async_context(CallbackDelivery(callbacks, backend, guard))
    return callbacks
