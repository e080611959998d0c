"""From a task's marks to what its run goes by: the role that its team gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from providers import AgentConfig
from queue_backends import Task
from worker.agents.resolved import ResolvedAgent
from worker.errors import AgentUnusable
from worker.loop_policy.model import LoopPolicy, in_force
from worker.settings.file import inherit
from worker.teams.errors import PlanNotFound, TeamNotFound
from worker.teams.marks import PLAIN_PURPOSES, Marks
from worker.teams.plan import Role, Team

if TYPE_CHECKING:
    from worker.teams.plans_in_use import PlansInUse


FindAgent = Callable[[str, str], ResolvedAgent]
"""The declared agent of a name, for a tenant. Raises as `AgentDirectory.resolve` does, also where none is declared."""


class Roles:
    """Resolves tasks of teams. `default` is the worker's own agent, which roles have what they leave open from."""

    def __init__(
        self,
        plans: PlansInUse,
        default: AgentConfig,
        find_agent: FindAgent,
        loop_policy: LoopPolicy | None = None,
    ) -> None:
        self._plans = plans
        self._loop_policy = loop_policy
        self._default = default
        self._find_agent = find_agent
        self._known: dict[tuple[str, str, str], ResolvedAgent] = {}

    async def make_sure(self, task: Task, marks: Marks) -> Role:
        """Have at hand what `resolve` needs, and the role that it will find. Raises `PlanNotFound`, `AgentUnusable`."""
        plan = await self._plans.admit(marks, task.tenant)
        return _role(_team(plan.find, marks), marks)

    def resolve(self, task: Task, marks: Marks) -> ResolvedAgent:
        """What the task's run goes by, without the task's overrides. Raises `PlanNotFound` if `make_sure` was not
        awaited, `AgentUnusable` for a role that is not there or does not fit, and what finding a declared agent does.
        """
        plan = self._plans.known(marks.plan)
        if plan is None:
            raise PlanNotFound(f"plan {marks.plan[:40]!r} is not at hand")
        key = (marks.plan, marks.team, marks.role)
        if (found := self._known.get(key)) is not None:
            return _for_purpose(found, marks)
        team = _team(plan.find, marks)
        role = _role(team, marks)
        if role.agent:  # whoever changes it changes what the next task goes by
            found = self._declared(role, team, task.tenant)
        else:
            found = ResolvedAgent(
                config=role_config(role, team, self._default),
                role=role,
                team=team,
                loop_policy=in_force(role.loop_policy, self._loop_policy),
                advisors={
                    name: role_config(replace(role, name=name, config=config), team, self._default)
                    for name, config in role.advisors.items()
                },
            )
            if len(self._known) >= 1000:
                self._known.clear()
            self._known[key] = found
        return _for_purpose(found, marks)

    def _declared(self, role: Role, team: Team, tenant: str) -> ResolvedAgent:
        found = self._find_agent(role.agent, tenant)
        return replace(found, role=role, team=team)


def role_config(role: Role, team: Team, default: AgentConfig) -> AgentConfig:
    """A role's own configuration. What it leaves open is the worker's; if it names a model, a provider or a route, all
    that says where calls go is its own. Raises `AgentUnusable`."""
    own: dict[str, Any] = msgspec.to_builtins(role.config)  # only what differs from the defaults, and the model
    if not own["model"] and not own.keys() & {"provider", "route"}:
        del own["model"]
    own.setdefault("name", f"{team.name}.{role.name}")
    try:
        config = msgspec.convert(inherit(msgspec.to_builtins(default), own), AgentConfig)
    except msgspec.ValidationError as error:
        raise AgentUnusable(f"role {role.name!r} of team {team.name!r} does not fit: {error}") from error
    if not (config.model or config.route or config.provider):
        raise AgentUnusable(
            f"role {role.name!r} of team {team.name!r} has no model, and neither have the settings of this worker: "
            "give the role a model, or set AGENT_MODEL"
        )
    return config


def _for_purpose(found: ResolvedAgent, marks: Marks) -> ResolvedAgent:
    if marks.purpose not in PLAIN_PURPOSES:
        return _told_of_data(found, marks)
    return replace(
        found,
        config=replace(found.config, tools=(), client_tools=()),
        tools_within=((),),
        datasources=(),
        loop_policy=None,
    )


def _told_of_data(found: ResolvedAgent, marks: Marks) -> ResolvedAgent:
    """With a word about the tags in its input, for a step's own task that has some."""
    from worker.teams.context_policies import data_note  # it takes all of the templates, which most workers never need

    note = data_note(found.team, marks.step) if found.team is not None and not marks.depth else ""
    if not note:
        return found
    prompt = f"{found.config.system_prompt}\n\n{note}".lstrip()
    return replace(found, config=replace(found.config, system_prompt=prompt))


def _team(find: Callable[[str], Team], marks: Marks) -> Team:
    try:
        return find(marks.team)
    except TeamNotFound as error:
        raise AgentUnusable(str(error)) from error


def _role(team: Team, marks: Marks) -> Role:
    role = team.role(marks.role)
    if role is None:
        names = ", ".join(role.name for role in team.roles) or "none"
        raise AgentUnusable(f"team {team.name!r} has no role {marks.role[:100]!r}; there are: {names}")
    return role
