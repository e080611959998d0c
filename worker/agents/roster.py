"""Every agent there is: the declared objects, those of the settings file, and the worker's own default agent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from providers import AgentConfig
from worker.agents.errors import AgentInactive, NotInGroup, OtherApp, OtherNamespace
from worker.agents.model import Agent, App
from worker.errors import AgentNotFound
from worker.objects import Stored

if TYPE_CHECKING:
    from worker.definitions import Definitions
    from worker.gateway.caller import Caller
    from worker.settings import Settings

DEFAULT_NAME = "default"
"""Of the worker's own agent, if its settings give it no name."""
_FIRST_FILE_ID = 2_000_000_000
"""Agents of settings have ids from here on, which no counted one reaches; all fit into 32 bits."""
_FILE_IDS = 2_000_000_000
_OWN_FIELDS = ("name", "provider", "model", "route", "system_prompt", "tools")
_MAY_HOLD_SECRETS = ("base_url", "options")


class Roster:
    """All agents of a process: live as far as `definitions` follows its objects, otherwise as its settings have them.

    An object counts more than an agent of the settings with the same name.
    """

    def __init__(self, settings: Settings, definitions: Definitions | None = None) -> None:
        self.settings = settings
        self.definitions = definitions
        self.default_name = settings.agent_name or DEFAULT_NAME
        self._file = {agent.value.slug: agent for agent in _agents_of(settings, self.default_name)}
        self._file_by_id = {agent.id: agent for agent in self._file.values()}

    def all(self) -> Sequence[Stored[Agent]]:
        """All agents, active or not: the declared ones, the newest first, then those of the settings."""
        stored = () if self.definitions is None else self.definitions.agents.all()
        hidden = {agent.value.slug for agent in stored if not agent.value.namespace}
        return [*stored, *(agent for slug, agent in self._file.items() if slug not in hidden)]

    def find(self, reference: str | int, namespace: str = "") -> Stored[Agent]:
        """The agent of a slug, a name for people, or an id, as a member of a namespace means it: the namespace's own,
        or else everybody's. Without a namespace it may be anybody's; a slug then means everybody's first.

        Raises `AgentNotFound`, also for a name that several agents have.
        """
        found = self._found(reference, namespace)
        if found is None:
            raise AgentNotFound(f"no agent {str(reference)[:100]!r} is declared")
        return found

    def find_for(self, reference: str | int, caller: Caller) -> Stored[Agent]:
        """The agent that a caller means and may use. Its tasks belong to the tenant `caller.tenant`, or else to the
        agent's namespace. Raises `AgentNotFound`, `AccessDenied`."""
        found = self.find(reference, caller.tenant)
        self.check_access(found, caller)
        return found

    def visible_to(self, caller: Caller, *, with_inactive: bool = False) -> Sequence[Stored[Agent]]:
        """The agents that a caller may use, and on request those that it could if they were active."""
        agents = self.all()
        own = {agent.value.slug for agent in agents if caller.tenant and agent.value.namespace == caller.tenant}
        return [
            agent
            for agent in agents
            if (agent.value.namespace or agent.value.slug not in own)  # its own one hides everybody's of that name
            and self._refusal(agent.value, caller) is None
            and (with_inactive or self._switched_off(agent.value) is None)
        ]

    def check_access(self, agent: Stored[Agent], caller: Caller) -> None:
        """Raise `AccessDenied` unless the caller may use the agent now."""
        refusal = self._refusal(agent.value, caller) or self._switched_off(agent.value)
        if refusal is not None:
            raise refusal

    def is_from_settings(self, agent: Stored[Agent]) -> bool:
        """Whether an agent is one of the settings, and thus no object that can be changed."""
        return agent.id in self._file_by_id

    def from_settings(self, name: str) -> Stored[Agent] | None:
        """The agent of that name in the settings."""
        return self._file.get(name)

    def app_of(self, agent: Agent) -> App | None:
        """The agent's app; None if it has none, or the one that it names is not there."""
        if not agent.app or self.definitions is None:
            return None
        found = self.definitions.apps.visible(agent.app, agent.namespace)
        return None if found is None else found.value

    def _found(self, reference: str | int, namespace: str) -> Stored[Agent] | None:
        if isinstance(reference, int):
            return self._by_id(reference, namespace)
        if (found := self._by_slug(reference, namespace)) is not None:
            return found
        if reference.isascii() and reference.isdigit() and len(reference) <= len(str(_FIRST_FILE_ID)):
            found = self._by_id(int(reference), namespace)
        return found or _only(agent for agent in self._within(namespace) if agent.value.name == reference)

    def _by_slug(self, slug: str, namespace: str) -> Stored[Agent] | None:
        stored = None if self.definitions is None else self.definitions.agents.visible(slug, namespace)
        found = stored or self._file.get(slug)
        if found is None and not namespace:
            found = _only(agent for agent in self.all() if agent.value.slug == slug)
        return found

    def _by_id(self, number: int, namespace: str) -> Stored[Agent] | None:
        found = None if self.definitions is None else self.definitions.agents.by_id(number)
        found = found or self._file_by_id.get(number)
        return found if found is not None and _is_within(found.value, namespace) else None

    def _within(self, namespace: str) -> Iterator[Stored[Agent]]:
        return (agent for agent in self.all() if _is_within(agent.value, namespace))

    def _refusal(self, agent: Agent, caller: Caller) -> Exception | None:
        if caller.tenant and not _is_within(agent, caller.tenant):
            return OtherNamespace(f"agent {agent.slug!r} belongs to another namespace than {caller.tenant!r}")
        if caller.app and not self._is_of_app(agent, caller):
            return OtherApp(f"agent {agent.slug!r} does not belong to app {caller.app!r}, whose key this is")
        if not caller.in_any_of(agent.groups):
            return NotInGroup(f"agent {agent.slug!r} is for access groups that you are not in: ask an administrator")
        return None

    def is_of_app(self, name: str, namespace: str, caller: Caller) -> bool:
        """Whether an agent (by its slug; empty: the default one) belongs to the app whose key the caller has."""
        found = self._by_slug(name or self.default_name, namespace)
        return found is not None and self._is_of_app(found.value, caller)

    def _is_of_app(self, agent: Agent, caller: Caller) -> bool:
        """Whether it belongs to the very app whose key the caller has; another namespace's may have the same slug."""
        if agent.app != caller.app or self.definitions is None:
            return False
        its_own = self.definitions.apps.visible(agent.app, agent.namespace)
        return its_own is not None and its_own is self.definitions.apps.visible(caller.app, caller.tenant)

    def _switched_off(self, agent: Agent) -> Exception | None:
        if not agent.is_active:
            return AgentInactive(f"agent {agent.slug!r} is not active")
        app = self.app_of(agent)
        if agent.app and (app is None or not app.is_active):
            return AgentInactive(f"agent {agent.slug!r} cannot be used: its app {agent.app!r} is not active")
        return None


def _is_within(agent: Agent, namespace: str) -> bool:
    return not namespace or agent.namespace in ("", namespace)


def _only(agents: Iterable[Stored[Agent]]) -> Stored[Agent] | None:
    found = list(agents)
    return found[0] if len(found) == 1 else None


def _agents_of(settings: Settings, default_name: str) -> Iterator[Stored[Agent]]:
    taken: set[int] = set()
    named = settings.agents if default_name in settings.agents else {**settings.agents, default_name: settings.agent}
    for name in sorted(named):
        number = int.from_bytes(hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:8]) % _FILE_IDS
        while number in taken:
            number = (number + 1) % _FILE_IDS
        taken.add(number)
        agent = replace(
            agent_of(name, named[name]),
            description=settings.agent_descriptions.get(name, ""),
            groups=settings.agent_groups.get(name, ()),
        )
        yield Stored(id=_FIRST_FILE_ID + number, version=1, created_at=0.0, updated_at=0.0, value=agent)


def agent_of(name: str, config: AgentConfig) -> Agent:
    """An agent of the settings, in the form of an object."""
    settings = msgspec.to_builtins(config)
    for field in (*_OWN_FIELDS, *_MAY_HOLD_SECRETS):
        settings.pop(field, None)
    return Agent(
        slug=name,
        provider=config.provider,
        model=config.model,
        route=config.route,
        system_prompt=config.system_prompt,
        tools=None if config.tools == ("*",) else config.tools,
        settings=settings,
    )
