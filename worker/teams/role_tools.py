"""The tools that roles bring themselves: MCP servers and webhooks of a plan, opened when a role first needs them.

Runs of the same declaration share one connection; one that nobody has used for a while is closed. A run sees its own
role's tools alone: two teams may have servers of the same name.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import structlog
from msgspec import Struct, field

from providers.messages import ToolSpec
from providers.transport import Transport
from queue_backends.messages import encode_json
from worker.errors import AgentUnusable, BadSetting, Postponed
from worker.net_guard import AddressRefused, Http, NetGuard, Reach
from worker.teams.notify.degradation import Degradation, OnDegraded
from worker.teams.plan import Role, Team
from worker.teams.team_tools import team_tools
from worker.tools.catalogue import KIND_ORDER, ToolCatalogue
from worker.tools.config import McpServer, check_mcp_servers, check_webhook_tools
from worker.tools.mcp import LONG_AWAY_S, McpConnection
from worker.tools.read_output import READ_OUTPUT
from worker.tools.shared_folders import NO_FOLDERS, SharedFolders
from worker.tools.webhook import Webhook

IDLE_S = 300.0
MOST_SERVERS = 100
MOST_SETS = 1000
MOST_TOLD_OF = 20
"""Roles with the same server that are told of when it is away."""
FIRST_ATTEMPT_S = 15.0
NO_ROOM_S = 5.0
"""After so long a task comes back that found all connections in use."""

log = structlog.get_logger(__name__)


class OwnTools(Struct, frozen=True, eq=False):
    """The tools of one role, beside those of its worker."""

    catalogue: ToolCatalogue
    key: str

    def beside(self, shared: Sequence[ToolSpec], catalogue: ToolCatalogue) -> tuple[ToolSpec, ...]:
        """All that its model is told of, in ark's order: of two with the same name the role's own."""
        own = self.catalogue.specs()
        names = {spec.name for spec in own}
        specs = [*own, *(spec for spec in shared if spec.name not in names)]
        reader = catalogue.spec(READ_OUTPUT.name)
        if reader is READ_OUTPUT and READ_OUTPUT not in specs and any(spec.kind != "builtin" for spec in own):
            specs.append(reader)
        return tuple(sorted(specs, key=lambda spec: KIND_ORDER.get(spec.kind, len(KIND_ORDER))))


class _Server(Struct, eq=False):
    """An MCP server that is kept connected."""

    connection: McpConnection
    serving: asyncio.Task[None]
    sets: int = 0
    """How many sets of tools have it."""
    opened_at: float = field(default_factory=time.monotonic)
    needed_by: dict[tuple[str, str], str] = field(default_factory=dict)
    """Tenant and `<team>/<role>` -> the notification policy that the team names."""


class _Set(Struct, eq=False):
    """What a role declares, put together."""

    tools: OwnTools
    servers: tuple[str, ...]
    users: int = 0
    idle_since: float = 0.0


class RoleTools:
    """Hands out the tools of roles, and keeps their connections. Use it with `async with`."""

    def __init__(
        self,
        http: Transport,
        *,
        guard: NetGuard | None = None,
        outside: NetGuard | None = None,
        allows_commands: bool = False,
        with_mcp: bool = True,
        environ: Mapping[str, str] = os.environ,
        idle_s: float = IDLE_S,
        most_servers: int = MOST_SERVERS,
        first_attempt_s: float = FIRST_ATTEMPT_S,
        on_degraded: OnDegraded | None = None,
        long_away_s: float = LONG_AWAY_S,
        folders: SharedFolders = NO_FOLDERS,
    ) -> None:
        """`http` stays the caller's to close; `guard` says where servers may be, `outside` where those of callers'
        own files may be. `allows_commands`: whether a plan may
        have programs started here. Without `with_mcp`, no server is connected to. `on_degraded` hears of roles whose
        server is away for longer than `long_away_s`."""
        self._http = http
        self._guard = guard or NetGuard(Reach.NETWORK)
        self._outside = outside or NetGuard()
        self._outside_http = self._outside.http()
        self._allows_commands = allows_commands
        self._with_mcp = with_mcp
        self._environ = environ
        self._idle_s = idle_s
        self._most_servers = most_servers
        self._first_attempt_s = first_attempt_s
        self._on_degraded = on_degraded
        self._long_away_s = long_away_s
        self._folders = folders
        self._sets: dict[str, _Set] = {}
        self._servers: dict[str, _Server] = {}
        self._group: asyncio.TaskGroup | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._given_back = asyncio.Event()

    @property
    def connected(self) -> int:
        """How many MCP servers are kept connected."""
        return len(self._servers)

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        self._sweeper = self._group.create_task(self._sweep(), name="tools of roles")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        if self._sweeper is not None:
            self._sweeper.cancel()
        for server in self._servers.values():
            server.serving.cancel()
        self._servers.clear()
        self._sets.clear()
        try:
            if group is not None:
                await group.__aexit__(None, None, None)
        finally:
            await self._outside_http.aclose()

    async def take(self, team: Team, role: Role, tenant: str = "") -> OwnTools | None:
        """The role's own tools; None if it has none. To be given back. `tenant` is whose run it is.

        Waits for the first attempt to reach each server; those that cannot be reached have no tools, and are tried
        again meanwhile. Raises `AgentUnusable` for a declaration that cannot work, or a command that is not allowed;
        `Postponed` if all connections are in use.
        """
        servers = role.mcp_servers if self._with_mcp else ()
        builtins = team_tools(team, role)
        if not servers and not role.webhook_tools and not builtins:
            return None
        key = _digest((servers, role.webhook_tools, [tool.spec for tool in builtins], team.is_foreign))
        found = self._sets.get(key)
        if found is None:
            self._check(team, role, servers)
            found = self._sets[key] = self._opened(key, servers, role, team)
        found.users += 1
        for digest in found.servers:
            needed_by = self._servers[digest].needed_by
            if len(needed_by) < MOST_TOLD_OF:
                needed_by[tenant, f"{team.name}/{role.name}"] = team.notify
        try:
            await self._first_attempts(found)
        except BaseException:
            self.give_back(found.tools)
            raise
        return found.tools

    def give_back(self, tools: OwnTools) -> None:
        """A run does not need them any more."""
        if (found := self._sets.get(tools.key)) is not None:
            found.users -= 1
            if not found.users:
                found.idle_since = time.monotonic()
                self._given_back.set()

    def _check(self, team: Team, role: Role, servers: Sequence[McpServer]) -> None:
        where = f"role {role.name!r} of team {team.name!r}"
        for server in servers:
            if server.kind == "stdio" and not self._allows_commands:
                raise AgentUnusable(
                    f"{where} wants MCP server {server.name!r} started by a command, which this worker does not allow: "
                    "set SHOAL_TEAM_COMMANDS=1 on the workers, or name a server with a url"
                )
        try:
            check_mcp_servers(servers)
            check_webhook_tools(role.webhook_tools)
            self._check_addresses(self._guard_of(team), role, servers)
        except (BadSetting, AddressRefused) as error:
            raise AgentUnusable(f"{where}: {error}") from error

    def _guard_of(self, team: Team) -> NetGuard:
        return self._outside if team.is_foreign else self._guard

    def _http_of(self, team: Team) -> Http:
        return self._outside_http if team.is_foreign else self._http

    @staticmethod
    def _check_addresses(guard: NetGuard, role: Role, servers: Sequence[McpServer]) -> None:
        named = [(f"MCP server {each.name!r}", each.url) for each in servers if each.url]
        for what, url in [*named, *((f"webhook tool {each.name!r}", each.url) for each in role.webhook_tools)]:
            try:
                guard.check_url(url)
            except AddressRefused as error:
                raise AddressRefused(f"{what}: {error}") from error

    def _opened(self, key: str, servers: Sequence[McpServer], role: Role, team: Team) -> _Set:
        digests = tuple(_digest((server, team.is_foreign)) for server in servers)
        self._make_room(sum(digest not in self._servers for digest in set(digests)))
        shared = [self._server(digest, server, team) for digest, server in zip(digests, servers, strict=True)]
        webhooks = [Webhook(config, self._http_of(team), environ=self._environ) for config in role.webhook_tools]
        try:
            catalogue = ToolCatalogue(
                servers=[each.connection for each in shared], tools=[*webhooks, *team_tools(team, role)]
            )
        except BadSetting as error:
            self._close_unused()
            raise AgentUnusable(f"role {role.name!r} of team {team.name!r}: {error}") from error
        for each in shared:
            each.sets += 1
        return _Set(tools=OwnTools(catalogue, key), servers=digests, idle_since=time.monotonic())

    def _server(self, digest: str, server: McpServer, team: Team) -> _Server:
        found = self._servers.get(digest)
        if found is None:
            assert self._group is not None  # noqa: S101 - it is entered before any run begins
            connection = McpConnection(
                server,
                self._http_of(team),
                guard=self._guard_of(team),
                environ=self._environ,
                on_long_away=functools.partial(self._tell, digest),
                long_away_s=self._long_away_s,
                folders=self._folders,
            )
            serving = self._group.create_task(connection.serve(), name=f"tool server {server.name} of a role")
            found = self._servers[digest] = _Server(connection, serving)
        return found

    async def _tell(self, digest: str, server: str, reason: str) -> None:
        found = self._servers.get(digest)
        if found is None or self._on_degraded is None:
            return
        for (tenant, agent), policy in tuple(found.needed_by.items()):
            cause = f'MCP server "{server}"'
            await self._on_degraded(Degradation(agent=agent, cause=cause, reason=reason, tenant=tenant, policy=policy))

    def _make_room(self, wanted: int) -> None:
        idle = sorted(
            (key for key, each in self._sets.items() if not each.users), key=lambda key: self._sets[key].idle_since
        )
        for key in idle:
            if len(self._servers) + wanted <= self._most_servers and len(self._sets) < MOST_SETS:
                return
            self._drop(key)
        if len(self._servers) + wanted > self._most_servers:
            raise Postponed(
                f"all {self._most_servers} connections to roles' MCP servers are in use", retry_in_s=NO_ROOM_S
            )

    def _drop(self, key: str) -> None:
        for digest in self._sets.pop(key).servers:
            self._servers[digest].sets -= 1
        self._close_unused()

    def _close_unused(self) -> None:
        for digest in [digest for digest, server in self._servers.items() if not server.sets]:
            self._servers.pop(digest).serving.cancel()

    async def _first_attempts(self, found: _Set) -> None:
        """One that hangs holds up those runs alone that begin soon after it was first needed."""
        servers = [self._servers[each] for each in found.servers]
        until = max((each.opened_at for each in servers), default=0.0) + self._first_attempt_s
        if not servers or (left_s := until - time.monotonic()) <= 0:
            return
        waits = [asyncio.ensure_future(each.connection.first_attempt()) for each in servers]
        try:
            await asyncio.wait(waits, timeout=left_s)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _sweep(self) -> None:
        """Close what nobody has used for a while."""
        while True:
            now = time.monotonic()
            idle = {key: each.idle_since for key, each in self._sets.items() if not each.users}
            for key in [key for key, since in idle.items() if now - since >= self._idle_s]:
                log.info("tools of a role are closed: nobody has used them for a while", servers=self.connected)
                self._drop(key)
                del idle[key]
            next_in_s = min((since + self._idle_s - now for since in idle.values()), default=None)
            self._given_back.clear()
            try:
                async with asyncio.timeout(next_in_s):
                    await self._given_back.wait()
            except TimeoutError:
                continue


def _digest(value: object) -> str:
    return hashlib.sha256(encode_json(value)).hexdigest()
