"""A worker's parts, opened in the order in which they need each other, and what its runs share of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from msgspec import Struct
from msgspec.structs import replace

from queue_backends import Backend
from worker.approvals import Approvals
from worker.approvals.announcing import Announcing
from worker.approvals.tool_approvals import ToolApprovals
from worker.artifacts.artifacts import Artifacts, open_artifacts
from worker.assembly.abilities import Abilities, open_abilities
from worker.assembly.declared import Declared, open_declared
from worker.assembly.models import Models, open_models
from worker.assembly.records import Records, open_records
from worker.audit.opening import audited
from worker.journal import Journal
from worker.net_guard import NetGuard, guarded_transport
from worker.retries import RetryPolicy
from worker.sessions.assembly import conversations_of
from worker.settings import Settings
from worker.streaming import ChunkPublisher
from worker.surroundings import Limits, Surroundings
from worker.tools.outputs import OutputStore


class Parts(Struct, frozen=True, kw_only=True):
    """All that a worker needs, open."""

    records: Records
    declared: Declared
    models: Models
    abilities: Abilities
    artifacts: Artifacts


@asynccontextmanager
async def open_parts(settings: Settings, backend: Backend) -> AsyncIterator[Parts]:
    """The parts, for as long as the body runs. Raises `BackendUnavailable`, `BadSetting`, `ToolSetupFailed`."""
    async with AsyncExitStack() as stack:
        records = await stack.enter_async_context(open_records(settings, backend))
        declared = await stack.enter_async_context(open_declared(settings, backend.state))
        telemetry = await stack.enter_async_context(audited(records.telemetry, settings, declared.config_of))
        records = replace(records, telemetry=telemetry)
        http = guarded_transport(settings.allow_private_addresses)
        stack.push_async_callback(http.aclose)
        models = await stack.enter_async_context(open_models(settings, backend.state, declared, records, http))
        artifacts = await stack.enter_async_context(_artifacts(settings, backend))
        abilities = await stack.enter_async_context(
            open_abilities(settings, backend, declared, models, records, http, artifacts.folders)
        )
        if settings.plugins.on_worker:
            from worker.engine import engine_running  # gRPC takes 0.2 s to import

            await stack.enter_async_context(engine_running(settings.plugins, backend.state, shares_port=True))
        guard = NetGuard(allowed=settings.allow_private_addresses)
        await stack.enter_async_context(Announcing(backend.state, settings.approval, guard))
        yield Parts(records=records, declared=declared, models=models, abilities=abilities, artifacts=artifacts)


def surroundings_of(settings: Settings, backend: Backend, parts: Parts, publisher: ChunkPublisher) -> Surroundings:
    """What all runs of a worker share."""
    records, declared, models, abilities = parts.records, parts.declared, parts.models, parts.abilities
    approvals = Approvals(backend.state, wake=backend.queue.wake)
    return Surroundings(
        backend=backend,
        publisher=publisher,
        metrics=records.metrics,
        telemetry=records.telemetry,
        ledger=records.ledger,
        prices=records.prices,
        estimates=records.estimates,
        agents=declared.agents,
        agent_plugins=declared.agent_plugins,
        providers=models.providers,
        routing=models.routing,
        gates=models.gates,
        datasources=abilities.datasources,
        tools=abilities.tools,
        teams=abilities.teams,
        loop_policies=abilities.loop_policies,
        artifacts=parts.artifacts,
        approvals=ToolApprovals(approvals, settings.approval, os.environ),
        conversations=conversations_of(settings, backend),
        outputs=_outputs(settings, backend),
        journal=Journal(
            unfinished_s=settings.backend.unfinished_ttl_s,
            finished_s=settings.backend.result_retention_s,
            is_on=settings.journal,
        ),
        retries=RetryPolicy(
            max_retries=settings.max_retries,
            base_s=settings.retry_base_s,
            most_s=settings.retry_max_s,
            longest_wait_s=settings.max_postponed_s,
        ),
        limits=Limits(
            timeout_s=settings.timeout_s,
            max_deliveries=settings.backend.max_deliveries,
            drop_stale=settings.drop_stale,
        ),
        team=settings.team_name,
        role=settings.team_role,
    )


def _outputs(settings: Settings, backend: Backend) -> OutputStore | None:
    if not settings.max_stored_output_chars:
        return None
    return OutputStore(backend.state, keep_s=_kept_s(settings), max_chars=settings.max_stored_output_chars)


def _artifacts(settings: Settings, backend: Backend) -> AbstractAsyncContextManager[Artifacts]:
    return open_artifacts(
        settings.artifacts,
        backend.state,
        keep_s=_kept_s(settings),
        is_alone=settings.concurrency == settings.processes == 1,
        for_ark=settings.for_ark,
    )


def _kept_s(settings: Settings) -> float:
    """So long what a run has left behind is needed: it may be parked, for as long as people are waited for."""
    return settings.timeout_s + settings.approval.timeout_s + settings.backend.result_retention_s
