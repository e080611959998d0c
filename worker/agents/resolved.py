"""What one run goes by: its agent's configuration, and what it may use besides."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from msgspec import Struct

from providers import AgentConfig, ToolSpec
from worker.agents.model import Agent, App, Llm
from worker.datasources.model import Datasource
from worker.datasources.search_spec import KIND, search_spec, tool_name
from worker.loop_policy.model import LoopPolicy
from worker.teams.plan import Role, Team
from worker.tools.read_output import READ_OUTPUT

if TYPE_CHECKING:
    from worker.tools.catalogue import ToolCatalogue


class ResolvedAgent(Struct, frozen=True, kw_only=True):
    """A run takes it at its beginning and keeps it, whatever is changed meanwhile."""

    config: AgentConfig
    """With the task's overrides. Its `name` is the agent's slug."""
    agent: Agent | None = None
    """None: the worker's own agent, of which nothing else is known."""
    app: App | None = None
    """None: an operator's own agent, without a fence."""
    llms: tuple[Llm, ...] = ()
    """The active models of its app, in the app's order. No others may be called."""
    datasources: tuple[Datasource, ...] = ()
    """The active data sources that it may query."""
    tools_within: tuple[tuple[str, ...], ...] = ()
    """Sets of names and patterns: a tool has to fit one of each, beside `config.tools`."""
    role: Role | None = None
    """None: it is not the work of a team."""
    team: Team | None = None
    """The team whose role it is."""
    loop_policy: LoopPolicy | None = None
    """What happens around its tool calls, beside making them; None: nothing does."""
    advisors: dict[str, AgentConfig] = {}
    """Advisors that its file brings along, by name."""

    def may_call(self, tool: str, kind: str = "") -> bool:
        """Whether the run may call a tool of that name and kind, if there is one. No pattern opens a data source, and
        no data source opens another tool that has the name of its search."""
        if kind == KIND:
            return any(tool_name(source.slug) == tool for source in self.datasources)
        return tool == READ_OUTPUT.name or (
            _fits(tool, self.config.tools) and all(_fits(tool, names) for names in self.tools_within)
        )

    def tool_specs(self, catalogue: ToolCatalogue) -> tuple[ToolSpec, ...]:
        """The tools to tell the model of."""
        specs = catalogue.specs(self.config.tools)
        if self.tools_within:
            chosen = tuple(spec for spec in specs if self.may_call(spec.name, spec.kind))
            specs = chosen if any(spec.kind != "builtin" for spec in chosen) else _without_reader(chosen)
        if not self.datasources:
            return specs
        searches = map(search_spec, self.datasources)
        return (*specs, *(spec for spec in searches if _is_search(catalogue.spec(spec.name))))


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_search(spec: ToolSpec | None) -> bool:
    """Not so if another tool of the worker has taken the name."""
    return spec is not None and spec.kind == KIND


def _without_reader(specs: tuple[ToolSpec, ...]) -> tuple[ToolSpec, ...]:
    """`read_output` comes with tools whose output may be too long, never alone."""
    return tuple(spec for spec in specs if spec is not READ_OUTPUT)
