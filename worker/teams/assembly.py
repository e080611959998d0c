"""Puts together what a worker needs for the work of teams."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from queue_backends import Backend, open_backend
from queue_backends.capabilities import Capability
from worker.net_guard import NetGuard, Reach
from worker.teams.child_ends import ChildEnds
from worker.teams.memory.memories import Memories
from worker.teams.notify.service import Notifications
from worker.teams.role_tools import RoleTools
from worker.teams.routed_queues import RoutedQueues
from worker.teams.team_work import TeamWork
from worker.teams.waits import Waits
from worker.tools.shared_folders import NO_FOLDERS, SharedFolders

if TYPE_CHECKING:
    from providers.transport import Transport
    from worker.datasources.embeddings import Embeddings
    from worker.settings import Settings
    from worker.teams.runs import Runs


@asynccontextmanager
async def team_work(
    settings: Settings,
    backend: Backend,
    runs: Runs,
    http: Transport,
    embeddings: Embeddings,
    folders: SharedFolders = NO_FOLDERS,
) -> AsyncIterator[TeamWork]:
    """What the runs of a worker share for teams; `http` stays the caller's to close. `folders` is where tool servers
    may write files."""
    open_url = functools.partial(open_backend, options=settings.backend)
    waits = Waits(backend.state)
    allowed = settings.allow_private_addresses
    guard, outside = NetGuard(Reach.NETWORK, allowed=allowed), NetGuard(allowed=allowed)
    async with (
        RoleTools(
            http,
            guard=guard,
            outside=outside,
            allows_commands=settings.team_commands,
            with_mcp=settings.team_mcp,
            on_degraded=Notifications(backend.state).on_degraded,
            folders=folders,
        ) as tools,
        RoutedQueues(settings.team_routes, open_url) as routes,
        Memories(backend.state, options=settings.backend, embeddings=embeddings) as memories,
    ):
        yield TeamWork(
            runs=runs,
            queue=backend.queue,
            tools=tools,
            routes=routes,
            waits=waits,
            ends=ChildEnds(backend.queue, runs, waits),
            memories=memories,
            keeps_journal=settings.journal,
            looks_up=Capability.LISTING not in backend.gaps,
        )
