"""Where everything is put together: from settings to a running worker."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import structlog

from providers import ToolCall, ToolOutcome, tool_loop
from providers.pricing import PriceBook
from queue_backends import Backend, ChunkType, Task, open_backend
from queue_backends.composed import ComposedBackend
from worker.agent_plugins.instances import AgentPluginHost
from worker.agent_plugins.registry import AgentPlugins
from worker.agents import AgentDirectory, Roster
from worker.approvals import Approvals
from worker.approvals.announcing import Announcing
from worker.approvals.tool_approvals import ToolApprovals
from worker.call_estimates import CallEstimates
from worker.call_gates import CallGate
from worker.datasources.datasources import Datasources
from worker.datasources.embeddings import Embeddings
from worker.datasources.tool import DatasourceTools
from worker.definitions import Definitions
from worker.fleet.departure import Departure
from worker.fleet.heartbeat import Heartbeat
from worker.fleet.link import READY, SupervisorLink
from worker.fleet.presence import Workers, worker_id
from worker.gaps import say_gaps
from worker.gates import open_gates
from worker.health import HealthServer, HealthState
from worker.health_thread import from_beside, served_beside
from worker.journal import Journal
from worker.live_settings import LiveSettings
from worker.metrics import Metrics
from worker.net_guard import NetGuard, guarded_transport
from worker.providers_in_use import ProvidersInUse
from worker.queue_gauges import QueueGauges, queue_name
from worker.remote_providers import RemoteActions, RemoteDirectory, RemoteProviders
from worker.retries import RetryPolicy
from worker.routing.routing import Routing
from worker.sessions.assembly import conversations_of
from worker.settings import Settings
from worker.settings.masking import masked_url
from worker.streaming import ChunkPublisher
from worker.surroundings import Limits, Surroundings
from worker.swarm_plugin.backends import open_with_plugin, plugin_url
from worker.swarm_plugin.everywhere import providers_of
from worker.teams.assembly import team_work
from worker.teams.plans_in_use import PlansInUse
from worker.teams.runs import Runs
from worker.teams.team_work import TeamWork
from worker.telemetry import Telemetry
from worker.tools.build import build_catalogue
from worker.tools.catalogue import ToolCatalogue
from worker.tools.interfaces import ToolContext
from worker.tools.outputs import OutputStore
from worker.usage import UsageLedger
from worker.worker import Worker

log = structlog.get_logger(__name__)


async def open_backends(settings: Settings) -> Backend:
    """The backend that the settings name; queue, chunks and state may be on different ones."""
    queue_url = settings.queue_url
    if plugin_url(settings):
        return await open_with_plugin(settings)
    async with AsyncExitStack() as opened:
        queue = await opened.enter_async_context(await open_backend(queue_url, settings.backend))
        others = []
        for url in (settings.stream_url, settings.state_url):
            if not url or same_server(url, queue_url):
                others.append(queue)
            else:
                others.append(await opened.enter_async_context(await open_backend(url, settings.backend)))
        opened.pop_all()
    stream, state = others
    return queue if stream is queue and state is queue else ComposedBackend(queue, stream, state)


def same_server(url: str, other: str) -> bool:
    """Whether two URLs name the same server and database. ark's operators give the stream's URL without a queue name,
    and keys of chunks follow the queue's name here."""
    return url.partition("?")[0].rstrip("/") == other.partition("?")[0].rstrip("/")


@asynccontextmanager
async def open_worker(settings: Settings, backend: Backend) -> AsyncIterator[Worker]:
    """A worker inside this process, running until the body ends; then it drains."""
    async with _assembled(settings, backend) as parts:
        running = asyncio.create_task(parts.worker.run(), name="worker")
        try:
            yield parts.worker
        finally:
            parts.worker.stop()
            await running


async def run_worker(
    settings: Settings, *, link: SupervisorLink | None = None, check_settings: Callable[[], object] | None = None
) -> bool:
    """Work until a signal or a request ends it (`worker.fleet.departure`), drain, and return.

    Says whether the process shall start anew, which is what SIGHUP means; `check_settings` raises `BadSetting` if that
    would not do. A supervisor hears over the `link` when the worker is ready.
    """
    link = link or SupervisorLink()
    backend = await open_backends(settings)
    async with backend, _assembled(settings, backend, serves_health=True, waits_for_port=link.is_supervised) as parts:
        settle_memory()
        say_gaps(backend)
        log.info(
            "agent runtime started",
            queue=masked_url(settings.queue_url) or "embedded",
            model=settings.agent.model or settings.agent.route,
            concurrency=settings.concurrency,
            worker=worker_id(backend.queue),
            health_port=parts.server.port if parts.server else 0,
        )
        starts_anew = await _work_until_told(backend, parts, link, check_settings)
        log.info("worker stopped")
    return starts_anew


async def _work_until_told(
    backend: Backend, parts: Assembled, link: SupervisorLink, check_settings: Callable[[], object] | None
) -> bool:
    worker = parts.worker

    def drain() -> None:
        worker.stop()
        heartbeat.leaving()

    departure = Departure(link, drain=drain, hurry=lambda: working.cancel(), check=check_settings)
    heartbeat = Heartbeat(
        Workers(backend.state),
        worker_id(backend.queue),
        worker,
        metrics=parts.metrics,
        ledger=parts.ledger,
        server=parts.server,
        drain=departure.requested,
    )
    async with asyncio.TaskGroup() as services:
        working = services.create_task(worker.run(), name="worker")
        side = [
            services.create_task(heartbeat.run(), name="heartbeat"),
            services.create_task(departure.with_supervisor(), name="supervisor's end"),
        ]
        with departure.signals():
            link.say(READY)
            await asyncio.wait([working])
        for task in side:
            task.cancel()
    return departure.starts_anew


def settle_memory() -> None:
    """Keep the garbage collector from looking at everything that was imported, again and again.

    Measured on tasks that are answered at once: a fifth less CPU per task, a quarter more tasks per second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


class Assembled(NamedTuple):
    """A worker, and what tells of its work."""

    worker: Worker
    metrics: Metrics
    ledger: UsageLedger
    server: HealthServer | None


@asynccontextmanager
async def _assembled(
    settings: Settings, backend: Backend, *, serves_health: bool = False, waits_for_port: bool = False
) -> AsyncIterator[Assembled]:
    """A worker with everything it needs, not yet running."""
    metrics = Metrics(prefix=settings.metrics_prefix, namespace=settings.namespace)
    metrics.queue = QueueGauges(backend.queue.stats, queue_name(settings.queue_url))
    telemetry = Telemetry.from_environment(
        metrics_prefix=settings.metrics_prefix, namespace=settings.namespace, metrics=metrics
    )
    health = HealthState()
    ledger = UsageLedger(keep_s=settings.usage_retention_days * 86_400.0)
    server: HealthServer | None = None
    async with AsyncExitStack() as stack:
        stack.push_async_callback(telemetry.shutdown)
        live = await stack.enter_async_context(LiveSettings(backend.state))
        definitions = await stack.enter_async_context(Definitions(backend.state))
        runs = Runs.of(settings, backend.state)
        agents = AgentDirectory(Roster(settings, definitions), PlansInUse(runs))
        stack.callback(agents.close)
        directory = await stack.enter_async_context(RemoteDirectory(backend.state))
        remote = RemoteProviders(directory, settings.plugins.channel_options(), settings.plugins.shadow)
        stack.push_async_callback(remote.aclose)
        providers = providers_of(settings, live, remote.create)
        stack.push_async_callback(providers.close)
        http = guarded_transport(settings.allow_private_addresses)
        stack.push_async_callback(http.aclose)
        prices, estimates = PriceBook(settings.prices), CallEstimates()
        embeddings = Embeddings(providers, backend.state, ledger, prices)
        datasources = Datasources(definitions, backend.state, embeddings)
        stack.push_async_callback(datasources.aclose)
        agent_plugins = AgentPluginHost(
            AgentPlugins.of(settings, definitions.plugins), backend.state, definitions.agents
        )
        stack.push_async_callback(agent_plugins.close)
        searches = DatasourceTools(definitions, datasources)
        stack.callback(searches.close)
        tools = await stack.enter_async_context(
            build_catalogue(
                http,
                mcp_servers=settings.mcp_servers,
                webhook_tools=settings.webhook_tools,
                python_tools=settings.python_tools,
                with_outputs=settings.max_stored_output_chars > 0,
                team_routes=settings.team_routes,
                servers=[RemoteActions(remote), searches],
            )
        )
        teams = await stack.enter_async_context(team_work(settings, backend, runs, http, embeddings))
        if settings.plugins.on_worker:
            from worker.engine import engine_running  # gRPC takes 0.2 s to import

            await stack.enter_async_context(engine_running(settings.plugins, backend.state, shares_port=True))
        routing = Routing(
            settings.routes,
            live=live,
            state=backend.state,
            providers=providers,
            prices=prices,
            metrics=metrics.routing,
            is_healthy=remote.is_healthy,
        )
        stack.callback(routing.close)
        routing.say_unknown([settings.agent, *settings.agents.values()])
        gates = await stack.enter_async_context(
            open_gates(
                settings,
                backend.state,
                live,
                http,
                prices=prices,
                estimates=estimates,
                metrics=metrics,
                definitions=definitions,
            )
        )
        approvals = Approvals(backend.state, wake=backend.queue.wake)
        guard = NetGuard(allowed=settings.allow_private_addresses)
        await stack.enter_async_context(Announcing(backend.state, settings.approval, guard))
        surround = functools.partial(
            _surroundings,
            settings,
            backend,
            agents=agents,
            datasources=datasources,
            agent_plugins=agent_plugins,
            tools=tools,
            providers=providers,
            gates=gates,
            estimates=estimates,
            prices=prices,
            routing=routing,
            ledger=ledger,
            metrics=metrics,
            telemetry=telemetry,
            teams=teams,
            approvals=approvals,
        )
        worker = Worker(
            backend,
            surround,
            metrics=metrics,
            health=health,
            concurrency=settings.concurrency,
            lease_s=settings.backend.lease_s,
            grace_s=settings.grace_s,
        )
        if serves_health:
            health.tools_down = tools.problems
            ask = functools.partial(_probe, settings, tools, providers, routing)
            probe = ask if settings.validator_prompt else None
            server = HealthServer(
                health,
                metrics,
                host=settings.health_host,
                port=settings.health_port,
                ping=from_beside(backend.queue.ping),
                probe=from_beside(probe) if probe else None,
                waits_for_port=waits_for_port,
            )
            await stack.enter_async_context(served_beside(server))
        yield Assembled(worker, metrics, ledger, server)


def _surroundings(
    settings: Settings,
    backend: Backend,
    publisher: ChunkPublisher,
    *,
    agents: AgentDirectory,
    datasources: Datasources,
    agent_plugins: AgentPluginHost,
    tools: ToolCatalogue,
    providers: ProvidersInUse,
    gates: tuple[CallGate, ...],
    estimates: CallEstimates,
    prices: PriceBook,
    routing: Routing,
    ledger: UsageLedger,
    metrics: Metrics,
    telemetry: Telemetry,
    teams: TeamWork,
    approvals: Approvals,
) -> Surroundings:
    return Surroundings(
        backend=backend,
        agent_plugins=agent_plugins,
        publisher=publisher,
        agents=agents,
        datasources=datasources,
        providers=providers,
        tools=tools,
        gates=gates,
        estimates=estimates,
        outputs=_outputs(settings, backend),
        conversations=conversations_of(settings, backend),
        journal=Journal(
            unfinished_s=settings.backend.unfinished_ttl_s,
            finished_s=settings.backend.result_retention_s,
            is_on=settings.journal,
        ),
        ledger=ledger,
        prices=prices,
        routing=routing,
        metrics=metrics,
        telemetry=telemetry,
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
        teams=teams,
        approvals=ToolApprovals(approvals, settings.approval, os.environ),
        team=settings.team_name,
        role=settings.team_role,
    )


def _outputs(settings: Settings, backend: Backend) -> OutputStore | None:
    if not settings.max_stored_output_chars:
        return None
    # The run may be parked in between, for as long as people are waited for.
    keep_s = settings.timeout_s + settings.approval.timeout_s + settings.backend.result_retention_s
    return OutputStore(backend.state, keep_s=keep_s, max_chars=settings.max_stored_output_chars)


async def _probe(settings: Settings, tools: ToolCatalogue, providers: ProvidersInUse, routing: Routing) -> str:
    """ark's semantic readiness: the agent answers the validator prompt as it would a task. Not charged to a budget."""
    task = Task(id="health-probe", prompt=settings.validator_prompt)
    context = ToolContext(task_id=task.id, agent=settings.agent_name)

    async def call_tool(call: ToolCall) -> ToolOutcome:
        return await tools.call(call, context)

    specs = tools.specs(settings.agent.tools)
    if providers.routed(settings.agent):
        router, taken = routing.begin(settings.agent, task)
        try:
            run = await tool_loop.run(None, settings.agent, task, specs, call_tool, _drop_chunk, router=router)
        finally:
            taken.give_back()
        return run.output
    async with providers.lease(settings.agent) as provider:
        output, _ = await provider.run_task(settings.agent, task, specs, call_tool, _drop_chunk)
    return output


async def _drop_chunk(kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
    """Nobody watches a probe."""
