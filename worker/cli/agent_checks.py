"""What `shoal doctor` says of the agents that are declared: whether each could run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from queue_backends import QueueError
from worker.cli.findings import Finding, broken, doubtful, fine
from worker.errors import AccessDenied, AgentUnusable
from worker.objects import BadObject

if TYPE_CHECKING:
    from worker.agents.references import References
    from worker.definitions import Definitions
    from worker.settings import Settings

_LIMIT_S = 15.0


async def check_agents(settings: Settings) -> AsyncIterator[Finding]:
    """Whether each declared agent that is active could run, as far as this machine knows."""
    from worker.agent_plugins.registry import AgentPlugins
    from worker.agents.references import References
    from worker.assembly import open_backends
    from worker.definitions import Definitions
    from worker.live_settings import LiveSettings

    try:
        async with asyncio.timeout(_LIMIT_S), await open_backends(settings) as backend:
            definitions, live = Definitions(backend.state), LiveSettings(backend.state)
            await definitions.load()
            await live.load()
            plugins = AgentPlugins.of(settings, definitions.plugins)
            references = References(definitions, settings=settings, live=live, plugins=plugins, has_all_plugins=False)
            for finding in _findings(definitions, references, settings):
                yield finding
    except (QueueError, TimeoutError):
        return  # what is wrong with the queue's server was said before


def _findings(definitions: Definitions, references: References, settings: Settings) -> Iterator[Finding]:
    from worker.agents.resolution import resolution_of

    agents = [stored.value for stored in definitions.agents.all() if stored.value.is_active]
    working = 0
    for agent in agents:
        name = f"{agent.namespace}/{agent.slug}" if agent.namespace else agent.slug
        try:
            resolution_of(agent, definitions, settings.agent)
            warnings = references.check(agent)
        except (AccessDenied, AgentUnusable, BadObject) as error:
            yield broken("agents", name, str(error), f"shoal agent show {agent.slug}")
            continue
        working += 1
        for warning in warnings:
            yield doubtful("agents", name, warning, f"shoal agent show {agent.slug}")
    if agents:
        yield fine("agents", "declared", f"{working} of {len(agents)} active ones can run")
