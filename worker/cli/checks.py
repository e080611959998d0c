"""The checks of `shoal doctor`. Each looks at one part of the set-up for real, and reports; none raises."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from providers import AgentConfig, HealthCheck, LLMProvider, ProviderError, UnknownProvider, create
from queue_backends import Backend, Capability, QueueError, QueueStats, open_backend
from worker.cli.findings import Finding, broken, doubtful, fine
from worker.cli.wording import count, duration
from worker.errors import WorkerError
from worker.settings.masking import masked_url

if TYPE_CHECKING:
    from worker.providers_in_use import ProvidersInUse
    from worker.settings import Settings

_REDIS_SCHEMES = ("redis", "rediss", "unix")
_PINGS = 5
_SLOW_PING_S = 0.05
_OPEN_TIMEOUT_S = 15.0
_PROVIDER_TIMEOUT_S = 10.0
_LONG_WAIT_S = 60.0


def check_settings(settings: Settings) -> Finding:
    """Where the settings come from. They are valid, or there would be none."""
    sources = sorted(set(settings.sources.values()))
    return fine("settings", "settings", f"from {', '.join(sources)}" if sources else "all at their defaults")


async def check_queue(settings: Settings) -> AsyncIterator[Finding]:
    """Whether the queue can be used, how quick it is, and whether its work gets done."""
    url = masked_url(settings.queue_url) or "the embedded server of this machine"
    try:
        async with asyncio.timeout(_OPEN_TIMEOUT_S):
            backend = await open_backend(settings.queue_url, settings.backend)
    except (QueueError, TimeoutError) as error:
        reason = str(error) or f"no answer within {duration(_OPEN_TIMEOUT_S)}"
        yield broken("queue", "reachable", reason, f"check that {url} is right and that its server runs")
        return
    async with backend:
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                yield _latency(url, await _server_version(backend.url), await _ping_times(backend))
                for finding in (*_gaps(backend), *_backlog(await backend.queue.stats())):
                    yield finding
        except (QueueError, TimeoutError) as error:
            yield broken("queue", "usable", str(error) or "it stopped answering", "look at the server's own log")


async def check_providers(settings: Settings) -> AsyncIterator[Finding]:
    """Whether each provider that an agent uses is there and answers."""
    agents = [agent for agent in (settings.agent, *settings.agents.values()) if agent.model or agent.route]
    if not agents:
        yield _no_model()
    for missing in sorted({agent.route for agent in agents if agent.route} - set(settings.routes)):
        yield doubtful("route", missing, "an agent takes it, and shoal.yaml has none of that name", "shoal routes list")
    async with _in_use(settings) as used:
        by_place = _by_provider(used, (config for agent in agents for config in _called(settings, agent)))
        for name, users in by_place.items():
            yield await _provider(name, users, used)


def _no_model() -> Finding:
    from worker.local_model import LocalModel

    instead = "the small local model answers" if LocalModel.available() else "the scripted provider pretends to answer"
    found = f"no model is configured: {instead}"
    return doubtful("provider", "model", found, "set AGENT_MODEL, or agent.model in shoal.yaml")


async def check_tools(settings: Settings) -> AsyncIterator[Finding]:
    """Whether Python tools load and MCP servers answer."""
    from providers.transport import Transport
    from worker.tools.build import build_catalogue

    if not (settings.mcp_servers or settings.webhook_tools or settings.python_tools):
        return
    transport = Transport()
    try:
        catalogue = build_catalogue(
            transport,
            mcp_servers=settings.mcp_servers,
            webhook_tools=settings.webhook_tools,
            python_tools=settings.python_tools,
            with_queue=False,
        )
        async with catalogue:
            problems = catalogue.problems()
            for name, reason in problems.items():
                yield broken("tools", name, reason, "fix the server or its entry; agents run without its tools")
            names = [spec.name for spec in catalogue.specs()]
            yield fine("tools", "offered", f"{len(names)}: {', '.join(names[:12])}{' …' if len(names) > 12 else ''}")
    except WorkerError as error:
        yield broken("tools", "set-up", str(error), "fix the declaration of this tool")
    finally:
        await transport.aclose()


async def _ping_times(backend: Backend) -> list[float]:
    times_s = []
    for _ in range(_PINGS):
        started_at = time.perf_counter()
        await backend.queue.ping()
        times_s.append(time.perf_counter() - started_at)
    return times_s


async def _server_version(url: str) -> str:
    """`Valkey 9.1.2, `, for a queue on such a server; empty for others."""
    if url.partition("://")[0] not in _REDIS_SCHEMES:
        return ""
    from queue_backends.redis.client import RedisClient

    client = RedisClient(url)
    try:
        facts = _info(await client.command("INFO", "server"))
    finally:
        await client.close()
    if "valkey_version" in facts:
        return f"Valkey {facts['valkey_version']}, "
    return f"Redis {facts['redis_version']}, " if "redis_version" in facts else ""


def _info(reply: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in reply.decode().splitlines())
    return {name: value for name, separator, value in pairs if separator}


def _latency(url: str, version: str, times_s: list[float]) -> Finding:
    median_s = statistics.median(times_s)
    how_soon = f"in {median_s * 1000:.1f} ms" if median_s >= 0.0001 else "in less than 0.1 ms"
    detail = f"{url}: {version}answers {how_soon}"
    if median_s > _SLOW_PING_S:
        return doubtful("queue", "reachable", detail, "run the workers nearer to the queue's server")
    return fine("queue", "reachable", detail)


def _gaps(backend: Backend) -> Iterable[Finding]:
    """What may cost accepted tasks is worth a doubt; all else is as the engine's user has chosen it."""
    for capability, meaning in backend.gaps.items():
        if capability is Capability.DURABLE:
            yield doubtful("queue", "durable", meaning, "see docs/queue-backends.md, Durability")
        else:
            yield fine("queue", "guarantees", f"without {capability.value}: {meaning}")


def _backlog(stats: QueueStats) -> Iterable[Finding]:
    figures = ", ".join(f"{count(getattr(stats, name))} {name}" for name in ("ready", "running", "delayed", "dead"))
    if stats.paused:
        yield doubtful("queue", "paused", f"nothing is delivered ({figures})", "shoal resume")
    elif stats.ready and not stats.running:
        yield doubtful("queue", "backlog", f"{figures}: nobody works on it", "start a worker: shoal worker")
    elif (stats.oldest_ready_age_s or 0) > _LONG_WAIT_S:
        waited = duration(stats.oldest_ready_age_s or 0)
        yield doubtful("queue", "backlog", f"{figures}; the oldest waits since {waited}", "start more workers")
    else:
        yield fine("queue", "backlog", figures)
    if stats.dead:
        yield doubtful("queue", "dead letters", f"{count(stats.dead)} given up", "shoal dead list")


def _called(settings: Settings, agent: AgentConfig) -> list[AgentConfig]:
    """What is called when this agent runs: its own model, or the targets of its route."""
    if not agent.route:
        return [agent]
    route = settings.routes.get(agent.route)
    return [target.config_for(agent) for target in route.targets] if route else []


def _by_provider(used: ProvidersInUse, configs: Iterable[AgentConfig]) -> dict[str, list[AgentConfig]]:
    """Agents by what their calls have in common: provider, address and key."""
    users: dict[str, list[AgentConfig]] = {}
    for config in configs:
        name = used.name_of(config)
        place = " ".join(part for part in (name, masked_url(config.base_url), config.api_key_env) if part)
        users.setdefault(place, []).append(config)
    return users


@asynccontextmanager
async def _in_use(settings: Settings) -> AsyncIterator[ProvidersInUse]:
    """The providers as a worker would have them: with the fleet's live settings, and the registered remote ones."""
    from worker.assembly import open_backends
    from worker.live_settings import LiveSettings
    from worker.remote_providers import RemoteDirectory, RemoteProviders
    from worker.swarm_plugin.everywhere import providers_of

    async with AsyncExitStack() as opened:
        live: LiveSettings | None = None
        make: Callable[[str], LLMProvider] = create
        with contextlib.suppress(QueueError, TimeoutError):  # what is wrong with the queue is another check's finding
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                backend = await opened.enter_async_context(await open_backends(settings))
                live = LiveSettings(backend.state)
                await live.load()
                directory = RemoteDirectory(backend.state)
                await directory.load()
            remote = RemoteProviders(directory, settings.plugins.channel_options(), settings.plugins.shadow)
            opened.push_async_callback(remote.aclose)
            make = remote.create
        used = providers_of(settings, live, make)
        opened.push_async_callback(used.close)
        yield used


async def _provider(place: str, users: list[AgentConfig], used: ProvidersInUse) -> Finding:
    config = users[0]
    models = ", ".join(sorted({user.model for user in users}))
    try:
        async with asyncio.timeout(_PROVIDER_TIMEOUT_S), used.lease(config) as provider:
            if not isinstance(provider, HealthCheck):
                return fine("provider", place, f"{models} (it has no health check)")
            health = await provider.health_check(config)
    except UnknownProvider as error:
        return broken("provider", place, str(error), "set AGENT_PROVIDER to one of these, or install its package")
    except (ProviderError, ImportError) as error:
        return broken("provider", place, str(error), "correct its settings: shoal provider config")
    except TimeoutError:
        return broken(
            "provider", place, f"no answer within {duration(_PROVIDER_TIMEOUT_S)}", "check network and address"
        )
    if health.healthy:
        return fine("provider", place, f"{models}{f': {health.message}' if health.message else ''}")
    return broken("provider", place, health.message, "check the key's variable, the model's name and the address")
