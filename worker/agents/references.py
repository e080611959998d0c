"""What an object refers to has to be there, and to fit; and what others refer to is not deleted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol

import providers
from worker.agents.errors import OutsideApp
from worker.agents.fence import chosen_llm
from worker.agents.model import Agent, App, Llm
from worker.agents.resolution import llms_of
from worker.datasources import registry
from worker.datasources.model import Datasource
from worker.errors import WorkerError
from worker.objects import BadObject, ObjectStore
from worker.objects.errors import ObjectInUse

if TYPE_CHECKING:
    from worker.definitions import Definitions
    from worker.live_settings import LiveSettings
    from worker.settings import Settings

_WILDCARDS = frozenset("*?[")


class PluginsKnown(Protocol):
    """What is asked of the agent plugins: `worker.agent_plugins.registry.AgentPlugins`."""

    def check_config(self, plugin_id: str, config: dict[str, Any]) -> None:
        """Raises `PluginNotFound`, or another `WorkerError` for a plugin that cannot be used and for a configuration
        that does not fit its schema."""
        ...


class References:
    """Checks objects against all the others, as this process knows them. What may only be known to the workers, such as
    a route of their settings file, comes as a warning."""

    def __init__(
        self,
        definitions: Definitions,
        *,
        settings: Settings | None = None,
        live: LiveSettings | None = None,
        plugins: PluginsKnown | None = None,
        has_all_plugins: bool = True,
    ) -> None:
        """`has_all_plugins`: what `plugins` does not know does not exist; if not, the workers may have it."""
        self._there = definitions
        self._settings = settings
        self._live = live
        self._plugins = plugins
        self._has_all_plugins = has_all_plugins

    # What it refers to

    def check(self, value: Any) -> list[str]:
        """What is odd about an object, as warnings. Raises `BadObject` for what cannot work."""
        match value:
            case Agent():
                return list(self._agent(value))
            case App():
                return list(self._app(value))
            case Llm():
                return list(self._llm(value))
            case Datasource():
                return list(self._datasource(value))
            case _:
                return []

    def _llm(self, llm: Llm) -> Iterator[str]:
        yield from self._place(f"llm {llm.slug!r}", llm.provider, llm.route)

    def _datasource(self, source: Datasource) -> Iterator[str]:
        what = f"datasource {source.slug!r}"
        if source.store not in (known := registry.available()):
            yield f"{what}: store {source.store!r} is not known here; there are: {', '.join(known)}"
        yield from self._place(what, "" if source.embed_provider == "scripted" else source.embed_provider, "")

    def _app(self, app: App) -> Iterator[str]:
        what = f"app {app.slug!r}"
        self._must_be_there(what, "llm", app.llms, self._there.llms, app.namespace)
        self._must_be_there(what, "data source", app.datasources, self._there.datasources, app.namespace)
        if app.is_active and not llms_of(app, self._there):
            yield f"{what} has no active llm: its agents cannot run"
        for agent in self.agents_of(app):
            if agent.llm and agent.llm not in app.llms:
                yield f"agent {agent.slug!r} uses llm {agent.llm!r}, which {what} does not have: it cannot run"
            if lacking := sorted(set(agent.datasources or ()) - set(app.datasources)):
                yield f"agent {agent.slug!r} uses data source {', '.join(lacking)}, which {what} does not have"

    def _agent(self, agent: Agent) -> Iterator[str]:
        what = f"agent {agent.slug!r}"
        self._must_be_there(what, "group", agent.groups, self._there.groups, agent.namespace)
        yield from self._plugin(what, agent)
        if not agent.app:
            self._must_be_there(what, "data source", agent.datasources or (), self._there.datasources, agent.namespace)
            yield from self._place(what, agent.provider, agent.route)
            if agent.namespace:
                yield f"{what} has no app: it may use every tool that the workers have, also those of other tenants"
            return
        stored = self._there.apps.visible(agent.app, agent.namespace)
        if stored is None:
            raise BadObject(f"{what}: there is no app {agent.app!r}; there are: {_known(self._there.apps)}")
        self._check_within(what, agent, stored.value)

    def _check_within(self, what: str, agent: Agent, app: App) -> None:
        llms = llms_of(app, self._there)
        if agent.is_active and not app.is_active:
            raise BadObject(f"{what}: its app {app.slug!r} is not active: activate it first")
        if agent.is_active and not llms:
            raise BadObject(f"{what}: its app {app.slug!r} must have at least one active llm")
        try:
            if llms:
                chosen_llm(
                    llms, app=app.slug, llm=agent.llm, model=agent.model, provider=agent.provider, route=agent.route
                )
        except OutsideApp as error:
            raise BadObject(f"{what}: {error}") from error
        if outside := sorted(set(agent.datasources or ()) - set(app.datasources)):
            raise BadObject(f"{what}: app {app.slug!r} has no data source {', '.join(outside)}")
        for tool in agent.tools or ():
            if _WILDCARDS.isdisjoint(tool) and not any(fnmatchcase(tool, pattern) for pattern in app.tools):
                raise BadObject(f"{what}: app {app.slug!r} has no tool {tool!r}; it has: {', '.join(app.tools) or '-'}")

    def _plugin(self, what: str, agent: Agent) -> Iterator[str]:
        if not agent.plugin or self._plugins is None:
            return
        from worker.agent_plugins.errors import PluginNotFound  # only agents with a plugin need it

        try:
            self._plugins.check_config(agent.plugin, agent.config)
        except PluginNotFound as error:
            if self._has_all_plugins:
                raise BadObject(f"{what}: {error}") from error
            yield f"{what}: {error}; the workers need it"
        except WorkerError as error:
            raise BadObject(f"{what}: {error}") from error

    def _must_be_there(
        self, what: str, kind: str, slugs: Iterable[str], store: ObjectStore[Any], namespace: str
    ) -> None:
        for slug in slugs:
            if store.visible(slug, namespace) is None:
                raise BadObject(f"{what}: there is no {kind} {slug!r}; there are: {_known(store)}")

    def _place(self, what: str, provider: str, route: str) -> Iterator[str]:
        if provider and provider not in providers.available():
            yield f"{what}: provider {provider!r} is not known here; a remote one has to be registered"
        if route and self._settings is not None:
            from worker.routing.route_table import RouteTable

            if route not in RouteTable(self._settings.routes, self._live).names():
                yield f"{what}: route {route!r} is not known here; the workers' settings, or live ones, need it"

    # Who refers to it

    def agents_of(self, app: App) -> Iterator[Agent]:
        """The agents that belong to an app."""
        for stored in self._there.agents.all():
            agent = stored.value
            if agent.app == app.slug and self._means(self._there.apps, agent.app, agent.namespace, app.namespace):
                yield agent

    def check_unused(self, value: Any, kind: str) -> None:
        """Raise `ObjectInUse` for what others refer to."""
        if users := sorted(self._users(value, kind)):
            shown = ", ".join(users[:10]) + (f" and {len(users) - 10} more" if len(users) > 10 else "")
            raise ObjectInUse(f"{kind} {value.slug!r} is used by {shown}: change or delete those first")

    def _users(self, value: Any, kind: str) -> Iterator[str]:
        if isinstance(value, App):
            yield from (f"agent {agent.slug}" for agent in self.agents_of(value))
            return
        slug, namespace = value.slug, value.namespace
        stores: dict[str, ObjectStore[Any]] = {
            "llm": self._there.llms,
            "datasource": self._there.datasources,
            "group": self._there.groups,
        }
        if kind not in stores:
            return
        store = stores[kind]
        for app in (stored.value for stored in self._there.apps.all()):
            named = {"llm": app.llms, "datasource": app.datasources, "group": ()}[kind]
            if slug in named and self._means(store, slug, app.namespace, namespace):
                yield f"app {app.slug}"
        for agent in (stored.value for stored in self._there.agents.all()):
            named = {"llm": (), "datasource": agent.datasources or (), "group": agent.groups}[kind]
            if slug in named and self._means(store, slug, agent.namespace, namespace):
                yield f"agent {agent.slug}"

    def _means(self, store: ObjectStore[Any], slug: str, namespace: str, of: str) -> bool:
        """Whether that slug, as a member of a namespace says it, is the object of the namespace `of`."""
        found = store.visible(slug, namespace)
        return found is not None and found.value.namespace == of


def _known(store: ObjectStore[Any]) -> str:
    return ", ".join(sorted({stored.value.slug for stored in store.all()})[:50]) or "none"
