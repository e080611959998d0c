"""Team files that come from callers. They are read without the server's environment, secrets and folders, and must not
reach into them later either: a plan is carried out by workers, which have keys and a network of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from worker.gateway.admin_rights import check_may_declare
from worker.gateway.caller import Scope
from worker.gateway.operation import Call
from worker.gateway.problem import Problem
from worker.net_guard import AddressRefused, NetGuard
from worker.teams.errors import BadTeamFile
from worker.teams.plan import Plan, Role, Team

if TYPE_CHECKING:
    from worker.teams.bundle import Bundle

_NOWHERE: Final = Path("/dev/null/file.yaml")
"""Beside it there is nothing: no `.env`, and no other file."""


def read_foreign(call: Call, text: str) -> Bundle:
    """What a caller's file declares, its plans marked as foreign. Raises `Problem` 403 for those who may declare
    nothing, 422 for a plan that would use what is the server's, and `BadTeamFile`."""
    from worker.teams.bundle import read_bundle

    caller = call.caller
    if not caller.may(Scope.ADMIN):
        raise Problem(
            403,
            "a file declares agents, which needs the scope 'admin': name a team of the fleet instead",
            code="missing_scope",
        )
    check_may_declare(caller, "team")
    try:
        bundle = read_bundle(_NOWHERE, text=text, environ={})
    except BadTeamFile as error:
        raise BadTeamFile(as_sent(str(error))) from None
    return replace(bundle, plans={name: _checked(call, plan) for name, plan in bundle.plans.items()})


def as_sent(text: str) -> str:
    """What is said of a file, without a folder that the caller knows nothing of."""
    return text.replace(f"{_NOWHERE.parent}/", "")


def _checked(call: Call, plan: Plan) -> Plan:
    """The plan, marked: workers look at every connection that its tools make."""
    allowed = call.gateway.settings.allow_private_addresses
    guard = NetGuard(allowed=allowed)
    for team in plan.teams:
        for what in _reaching(team):
            raise Problem(422, f"team {team.name[:100]!r}: {what}", code="not_from_outside")
        for where, url in _addresses(team):
            try:
                guard.check_url(url)
            except AddressRefused as error:
                raise Problem(422, f"{where}: {error}", code="address_refused") from error
    return replace(plan, teams=tuple(replace(team, is_foreign=True) for team in plan.teams))


def _reaching(team: Team) -> Iterator[str]:
    """What is wrong, in words."""
    if team.artifact_dir:
        yield "artifactStore names a folder of the workers: leave it out"
    if team.artifact_store:
        yield "artifactStore would be used with the workers' credentials: leave it out"
    for role in team.roles:
        yield from _of_role(role)
    approvals = [*(role.approval for role in team.roles), *(step.approval for step in team.steps)]
    if any(approval is not None and approval.webhook_env for approval in approvals):
        yield "webhookEnv names a variable of the server: give the webhook itself"


def _of_role(role: Role) -> Iterator[str]:
    where = f"role {role.name[:100]!r}"
    for server in role.mcp_servers:
        if server.kind == "stdio" or server.command:
            yield f"{where}: MCP server {server.name[:100]!r} is a command: give a url"
        if server.token_env_var or server.cert_file or server.key_file or server.env or server.headers_env:
            yield f"{where}: MCP server {server.name[:100]!r} uses the workers' variables or files: leave auth out"
    for tool in role.webhook_tools:
        if tool.headers_env:
            yield f"{where}: webhook tool {tool.name[:100]!r} has headersEnv, which names variables of the workers"
    if role.memory is not None and (role.memory.url_env or role.memory.endpoint):
        yield f"{where}: its memory is at an address of its own: leave endpoint and secretRef out"
    config = role.config
    if config.base_url or config.api_key_env or config.options:
        yield f"{where}: where models are called, and with which key, is the fleet's to say: leave that out"


def _addresses(team: Team) -> Iterator[tuple[str, str]]:
    for role in team.roles:
        for server in role.mcp_servers:
            yield f"MCP server {server.name[:100]!r}", server.url
        for tool in role.webhook_tools:
            yield f"webhook tool {tool.name[:100]!r}", tool.url
    for approval in (*(role.approval for role in team.roles), *(step.approval for step in team.steps)):
        if approval is not None and approval.webhook:
            yield "the webhook of an approval", approval.webhook
