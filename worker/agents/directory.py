"""Which agent a task means, and what its run may use: the agent's own, within what the task may override."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import structlog

from providers import AgentConfig
from queue_backends import InvalidTask, QueueError, Task
from worker.agents.fence import OVERRIDABLE, is_model_name, within_app
from worker.agents.resolution import resolution_of
from worker.agents.resolved import ResolvedAgent
from worker.agents.roster import Roster
from worker.errors import AccessDenied, AgentNotFound, AgentUnusable
from worker.loop_policy.model import in_force
from worker.teams.marks import PLAN, marks_of
from worker.teams.roles import Roles

if TYPE_CHECKING:
    from worker.definitions import Definitions
    from worker.teams.plans_in_use import PlansInUse

MOST_KNOWN = 10_000
"""Tasks may name any tenant: so many pairs of a tenant and an agent are remembered."""
_READ_LIMIT_S = 10.0

log = structlog.get_logger(__name__)


class AgentDirectory:
    """The agents that this worker runs. What changes counts for runs that begin from then on."""

    __slots__ = ("_default", "_following", "_known", "_roles", "_roster")

    def __init__(self, roster: Roster, plans: PlansInUse | None = None) -> None:
        """Without `plans`, tasks of teams cannot be run."""
        self._roster = roster
        self._roles = (
            None
            if plans is None
            else Roles(plans, roster.settings.agent, self._declared_agent, roster.settings.loop_policy)
        )
        settings = roster.settings
        own = None if roster.default_name in settings.agents else roster.from_settings(roster.default_name)
        self._default = ResolvedAgent(
            config=settings.agent,
            agent=None if own is None else own.value,
            loop_policy=in_force(settings.agent_loop_policies.get(roster.default_name), settings.loop_policy),
        )
        self._known: dict[tuple[str, str], ResolvedAgent] = {}
        """Tenant and name -> what was found, until anything that is declared changes."""
        self._following: list[Callable[[], None]] = []
        if (there := roster.definitions) is not None:
            stores = (there.agents, there.apps, there.llms, there.datasources)
            self._following = [store.on_change(self._changed) for store in stores]

    def close(self) -> None:
        """Follow the definitions no more."""
        for forget in self._following:
            forget()
        self._following = []

    def config_for(self, task: Task) -> AgentConfig:
        """The configuration of a task's run: the short form of `resolve`."""
        return self.resolve(task).config

    def resolve(self, task: Task) -> ResolvedAgent:
        """What a task's run goes by. A worker where no agent is declared at all runs every task with its own, as ark's
        does, whatever name the task carries.

        Raises `AgentNotFound`; `AccessDenied` if the agent is not active, or the task overrides what its app does not
        allow; `AgentUnusable` if something is missing that the agent is made of; `InvalidTask` for overrides that do
        not fit.
        """
        if PLAN in task.meta and (marks := marks_of(task.meta)) is not None:
            found = self._teams.resolve(task, marks)
            return overridden_agent(found, task) if task.overrides else found
        resolved = self._default if not task.agent else self._known.get((task.tenant, task.agent))
        if resolved is None:
            resolved = self._look_up(task.agent, task.tenant)
        return overridden_agent(resolved, task) if task.overrides else resolved

    def knows(self, task: Task) -> bool:
        """Whether `resolve` needs nothing that may just have been declared; if not, await `make_sure` before."""
        return (not task.agent or (task.tenant, task.agent) in self._known) and PLAN not in task.meta

    async def make_sure(self, task: Task) -> None:
        """Before a task's agent is taken to be missing, switched off or unfit, look into the store: whoever declares an
        agent and submits a task for it at once is faster than the news. Tasks of teams need their plan.

        Raises what `Roles.make_sure` does."""
        if (marks := marks_of(task.meta)) is not None:
            role = await self._teams.make_sure(task, marks)
            if not role.agent:
                return
            task = msgspec.structs.replace(task, agent=role.agent)
        definitions = self._roster.definitions
        if definitions is None or self._is_found(task):
            return
        try:
            async with asyncio.timeout(_READ_LIMIT_S):
                await _look_again(definitions, task)
        except (QueueError, TimeoutError) as error:
            log.warning("what is declared cannot be read, going on with what is known", error=str(error))

    @property
    def _teams(self) -> Roles:
        if self._roles is None:
            raise AgentUnusable("tasks of teams cannot be run here: there is no store to read plans from")
        return self._roles

    def _declared_agent(self, name: str, tenant: str) -> ResolvedAgent:
        """An agent that a role names: it is never replaced by the worker's own."""
        found = self._known.get((tenant, name)) or self._look_up(name, tenant)
        if found is self._default:
            raise AgentNotFound(f"no agent {name[:100]!r} is declared here; declared: {self._names(tenant)}")
        return found

    def _is_found(self, task: Task) -> bool:
        name = task.agent
        try:
            found = self._declared(name, task.tenant)
        except (AccessDenied, AgentUnusable):
            return False
        return found is not None or self._roster.from_settings(name) is not None

    def _look_up(self, name: str, tenant: str) -> ResolvedAgent:
        found = self._declared(name, tenant) or self._from_settings(name)
        if found is None:
            raise AgentNotFound(f"no agent {name[:100]!r} is declared here; declared: {self._names(tenant)}")
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[tenant, name] = found
        return found

    def _declared(self, name: str, tenant: str) -> ResolvedAgent | None:
        definitions = self._roster.definitions
        stored = None if definitions is None else definitions.agents.visible(name, tenant)
        if stored is None or definitions is None:
            return None
        settings = self._roster.settings
        return resolution_of(stored.value, definitions, settings.agent, settings.loop_policy)

    def _from_settings(self, name: str) -> ResolvedAgent | None:
        settings = self._roster.settings
        found = self._roster.from_settings(name)
        if found is not None:
            policy = in_force(settings.agent_loop_policies.get(name), settings.loop_policy)
            return ResolvedAgent(
                config=settings.agents.get(name, settings.agent), agent=found.value, loop_policy=policy
            )
        return None if settings.agents or self._is_any_declared(name) else self._default

    def _is_any_declared(self, name: str) -> bool:
        """Whether there is an agent object at all, or was one of that name: what was declared, with a fence around it,
        never falls back to the worker's own agent."""
        definitions = self._roster.definitions
        return definitions is not None and (bool(definitions.agents.all()) or definitions.agents.was_deleted(name))

    def _names(self, tenant: str) -> str:
        agents = self._roster.all()
        names = {agent.value.slug for agent in agents if agent.value.namespace in ("", tenant)}
        return ", ".join(sorted(names)[:50])

    def _changed(self, _before: object, _after: object) -> None:
        self._known.clear()


def overridden_agent(agent: ResolvedAgent, task: Task) -> ResolvedAgent:
    """The agent with the task's overrides. Raises `InvalidTask`, or `OutsideApp` for what its app does not allow."""
    overrides = _allowed(task)
    if agent.app is not None:
        overrides = within_app(agent, overrides)
    return msgspec.structs.replace(agent, config=overridden(agent.config, task, overrides))


def overridden(config: AgentConfig, task: Task, overrides: dict[str, object] | None = None) -> AgentConfig:
    """`config` with the task's overrides, or those given. Raises `InvalidTask` naming the one that is not allowed or
    does not fit."""
    given = _allowed(task) if overrides is None else overrides
    if config.route and "route" not in given and not given.keys().isdisjoint({"model", "provider"}):
        given = {**given, "route": ""}  # whoever names a model means that one
    if "instructions" in given:
        given = _with_instructions(config, given)
    if isinstance(model := given.get("model"), str) and model and not is_model_name(model):
        raise InvalidTask(f"overrides do not fit: model {model[:100]!r} is no model's name")
    try:
        return msgspec.convert({**msgspec.to_builtins(config), **given}, AgentConfig)
    except msgspec.ValidationError as error:
        raise InvalidTask(f"overrides do not fit: {error}") from error


def _with_instructions(config: AgentConfig, given: dict[str, object]) -> dict[str, object]:
    others = {name: value for name, value in given.items() if name != "instructions"}
    prompt, added = others.get("system_prompt", config.system_prompt), given["instructions"]
    if not isinstance(added, str) or not isinstance(prompt, str):
        raise InvalidTask("overrides do not fit: instructions and system_prompt must be text")
    return {**others, "system_prompt": "\n\n".join(filter(None, (prompt, added)))}


def _allowed(task: Task) -> dict[str, object]:
    if forbidden := sorted(set(task.overrides) - OVERRIDABLE):
        raise InvalidTask(
            f"overrides {', '.join(forbidden)} are not allowed for a task; allowed: {', '.join(sorted(OVERRIDABLE))}"
        )
    return dict(task.overrides)


async def _look_again(definitions: Definitions, task: Task) -> None:
    """Read the one agent, and what it is made of. Raises `BackendUnavailable`."""
    stored = await definitions.agents.look_again(task.agent, task.tenant)
    if stored is None:
        return
    agent = stored.value
    for slug in agent.datasources or ():
        await definitions.datasources.look_again(slug, agent.namespace)
    app = await definitions.apps.look_again(agent.app, agent.namespace) if agent.app else None
    if app is not None:
        for slug in app.value.llms:
            await definitions.llms.look_again(slug, app.value.namespace)
        for slug in app.value.datasources:
            await definitions.datasources.look_again(slug, app.value.namespace)
