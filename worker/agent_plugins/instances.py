"""The running plugins of a process: one for each agent and version of its configuration, from its first message until
the worker leaves, or the configuration changes."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import structlog

from queue_backends import StateChange, StateStore
from queue_backends.messages import JsonObject
from worker.agent_plugins.closed_sessions import PREFIX
from worker.agent_plugins.errors import PluginStartFailed
from worker.agent_plugins.key_values import GuardedValues, StoredValues
from worker.agent_plugins.package import PluginPackage
from worker.agent_plugins.permissions import Permissions
from worker.agent_plugins.registry import AgentPlugins
from worker.agent_plugins.request import PluginSession
from worker.agent_plugins.runner import PluginRunner, runner_of
from worker.agent_plugins.services import KeyValues
from worker.agents.model import Agent, App, PermissionScope
from worker.following import Following
from worker.objects import ObjectStore, Stored

START_LIMIT_S = 30.0
SESSION_LIMIT_S = 10.0
"""For `on_session_ready` and `on_session_closing`."""
SHUTDOWN_LIMIT_S = 10.0
MOST_SESSIONS = 10_000
"""An instance knows so many; the one that was used least recently is closed for a new one."""

log = structlog.get_logger(__name__)


class Instance:
    """One plugin with one configuration."""

    def __init__(self, package: PluginPackage, version: str, runner: PluginRunner) -> None:
        self.package = package
        self.version = version
        self.runner = runner
        self.messages = 0
        """How many it is handling."""
        self.is_retired = False
        """No new message comes to it."""
        self._starting = asyncio.Lock()
        self._has_started = False
        self._sessions: OrderedDict[str, PluginSession] = OrderedDict()
        self._readying: dict[str, asyncio.Lock] = {}
        self._abandoned: set[asyncio.Task[None]] = set()

    async def start(self, config: JsonObject, values: KeyValues) -> None:
        """Initialise it, once. Raises `PluginStartFailed`."""
        async with self._starting:
            if self._has_started:
                return
            own_log = structlog.get_logger("agent_plugin").bind(plugin=self.package.id)
            try:
                async with asyncio.timeout(START_LIMIT_S):
                    await asyncio.to_thread(self.package.check_program)
                    await self.runner.initialize(config, values, own_log)
            except TimeoutError as error:
                raise PluginStartFailed(
                    f"plugin initialization failed: {self.package.id} took longer than {START_LIMIT_S:g} s"
                ) from error
            except Exception as error:  # it is anybody's code
                raise PluginStartFailed(
                    f"plugin initialization failed: {self.package.id}: {type(error).__name__}: {error}"
                ) from error
            self._has_started = True
            log.info("agent plugin initialised", plugin=self.package.id, version=self.package.manifest.version)

    async def session(self, session: PluginSession) -> None:
        """Make a session ready, if it is new here."""
        if session.id in self._sessions:
            self._sessions.move_to_end(session.id)
            return
        async with self._readying.setdefault(session.id, asyncio.Lock()):
            if session.id in self._sessions:
                return
            await self._say("on_session_ready", session, lambda: self.runner.session_ready(session))
            self._sessions[session.id] = session
        self._readying.pop(session.id, None)
        if len(self._sessions) > MOST_SESSIONS:
            await self.session_closed(next(iter(self._sessions)))

    async def session_closed(self, session_id: str) -> None:
        """A session has ended: the plugin is told, if it had it."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            await self._say("on_session_closing", session, lambda: self.runner.session_closing(session))

    def has_session(self, session_id: str) -> bool:
        """Whether a session was made ready here."""
        return session_id in self._sessions

    def abandon(self, handler: asyncio.Task[None]) -> None:
        """A message's code goes on although it was told to end: it is kept from being forgotten in the middle."""
        self._abandoned.add(handler)
        handler.add_done_callback(self._abandoned.discard)

    async def shutdown(self) -> None:
        """The end."""
        try:
            async with asyncio.timeout(SHUTDOWN_LIMIT_S):
                for session_id in list(self._sessions):
                    await self.session_closed(session_id)
        except TimeoutError:
            log.warning("not all sessions of an agent plugin were closed", plugin=self.package.id)
        if not self._has_started:
            return
        try:
            async with asyncio.timeout(SHUTDOWN_LIMIT_S):
                await self.runner.shutdown()
        except TimeoutError:
            log.warning("an agent plugin did not shut down in time", plugin=self.package.id, limit_s=SHUTDOWN_LIMIT_S)
        except Exception:  # it is anybody's code, and there is nothing left to do with it
            log.exception("an agent plugin could not be shut down", plugin=self.package.id)

    async def _say(self, what: str, session: PluginSession, call: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(SESSION_LIMIT_S):
                await call()
        except TimeoutError:
            log.warning("an agent plugin took too long", plugin=self.package.id, what=what, session=session.id)
        except Exception:  # it is anybody's code: the message itself may succeed all the same
            log.exception("an agent plugin failed", plugin=self.package.id, what=what, session=session.id)


class AgentPluginHost:
    """All instances of a process. Close it after the last message."""

    def __init__(self, plugins: AgentPlugins, state: StateStore, agents: ObjectStore[Agent] | None = None) -> None:
        """`agents`: those that are declared; when one is changed or deleted, its instance is shut down."""
        self.plugins = plugins
        self._forget = agents.on_change(self._agent_changed) if agents is not None else lambda: None
        self._state = state
        self._instances: dict[tuple[str, str, str], Instance] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._closings: Following | None = None

    @asynccontextmanager
    async def instance(self, package: PluginPackage, agent: Agent, app: App | None) -> AsyncIterator[Instance]:
        """The instance for an agent, initialised, which stays for the length of a block.

        Raises `PluginStartFailed`, `BadPlugin`.
        """
        permissions = Permissions(package, app)
        found = self._take(package, agent, permissions)
        try:
            values = GuardedValues(StoredValues(self._state, package.id, agent.namespace), permissions)
            try:
                await found.start(package.config_for(agent.config), values)
            except PluginStartFailed:
                self._retire(found)
                raise
            self._follow_closings()
            yield found
        finally:
            found.messages -= 1
            if found.is_retired and not found.messages:
                self._leave(found)

    def _take(self, package: PluginPackage, agent: Agent, permissions: Permissions) -> Instance:
        key, version = (package.id, agent.namespace, agent.slug), _version_of(package, agent, permissions)
        found = self._instances.get(key)
        if found is not None and (found.version != version or found.runner.problem):
            if found.runner.problem:
                log.warning("an agent plugin is started anew", plugin=package.id, why=found.runner.problem)
            self._retire(found)
            if not found.messages:
                self._leave(found)
            found = None
        if found is None:
            found = self._instances[key] = Instance(package, version, runner_of(package))
        found.messages += 1
        return found

    def _agent_changed(self, before: Stored[Agent] | None, after: Stored[Agent] | None) -> None:
        """An instance whose configuration is another one now gets no more messages."""
        if before is None or not before.value.plugin:
            return
        old, new = before.value, None if after is None else after.value
        found = self._instances.get((old.plugin, old.namespace, old.slug))
        stays = new is not None and new.is_active and new.plugin == old.plugin and new.config == old.config
        if found is not None and not stays:
            self._retire(found)
            if not found.messages:
                self._leave(found)

    def _retire(self, instance: Instance) -> None:
        instance.is_retired = True
        self._instances = {key: each for key, each in self._instances.items() if each is not instance}

    def _leave(self, instance: Instance) -> None:
        leaving = asyncio.create_task(instance.shutdown(), name=f"shutdown of agent plugin {instance.package.id}")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    # Sessions that end

    def _follow_closings(self) -> None:
        """Hear of sessions that end, from the first instance on: most workers have none."""
        if self._closings is None:
            self._closings = Following(
                self._state,
                PREFIX,
                f"{PREFIX}~hello",
                what="ends of sessions",
                changed=self._heard,
                keep=self._keep,
            )
            self._closings.start()

    async def _keep(self) -> None:
        assert self._closings is not None  # noqa: S101 - it is what calls this
        self._closings.has_read()
        await asyncio.Event().wait()  # what ended before this process knew any session is no concern of it

    def _heard(self, change: StateChange) -> None:
        session_id = change.key.removeprefix(PREFIX)
        for instance in self._instances.values():
            if change.value is not None and instance.has_session(session_id):
                closing = asyncio.create_task(instance.session_closed(session_id), name=f"end of session {session_id}")
                self._leaving.add(closing)
                closing.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """The worker leaves: close all sessions, shut all plugins down."""
        self._forget()
        if self._closings is not None:
            await self._closings.stop()
        instances, self._instances = list(self._instances.values()), {}
        async with asyncio.TaskGroup() as group:
            for instance in instances:
                group.create_task(instance.shutdown(), name=f"shutdown of agent plugin {instance.package.id}")
        if self._leaving:
            await asyncio.wait(self._leaving)


def _version_of(package: PluginPackage, agent: Agent, permissions: Permissions) -> str:
    may_keep_values = PermissionScope.KV_READWRITE in permissions.granted  # outside of messages, too
    parts = [package.manifest.version, package.checksum, may_keep_values, package.config_for(agent.config)]
    plain = msgspec.json.encode(parts, order="sorted")
    return hashlib.blake2b(plain, digest_size=16).hexdigest()
