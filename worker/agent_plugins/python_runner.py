"""Runs a Python plugin in the worker's own event loop."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from queue_backends.messages import JsonObject
from worker.agent_plugins.current_services import CurrentServices, handling
from worker.agent_plugins.errors import BadPlugin, PluginCrashed
from worker.agent_plugins.package import PluginPackage
from worker.agent_plugins.plugin import AgentPlugin
from worker.agent_plugins.request import AgentRequest, PluginSession
from worker.agent_plugins.services import AgentStream, KeyValues, PluginLog, PluginServices

DEFAULT_MODULE = "plugin"
_importing = threading.Lock()


class PythonRunner:
    """The `PluginRunner` of `AgentPlugin` classes."""

    def __init__(self, package: PluginPackage) -> None:
        self._package = package
        self._made: AgentPlugin | None = None

    @property
    def problem(self) -> str:
        """None: it lives as long as this process."""
        return ""

    async def initialize(self, config: JsonObject, kv: KeyValues, log: PluginLog) -> None:
        """Import the plugin's code, which may take a while, and let it prepare itself. Raises `BadPlugin`, and whatever
        its code raises."""
        found = await asyncio.to_thread(load_class, self._package)
        with _contained():
            self._made = found()
            services = CurrentServices(kv, log)
            self._made.config, self._made.services = config, services
            await self._made.initialize(config, services)

    async def session_ready(self, session: PluginSession) -> None:
        """A session is new here."""
        with _contained():
            await self._plugin.on_session_ready(session)

    async def handle_message(self, request: AgentRequest, stream: AgentStream, services: PluginServices) -> None:
        """Answer one message."""
        with handling(services), _contained():
            await self._plugin.handle_message(request, stream)

    async def session_closing(self, session: PluginSession) -> None:
        """A session has ended."""
        with _contained():
            await self._plugin.on_session_closing(session)

    async def shutdown(self) -> None:
        """The end."""
        with _contained():
            await self._plugin.shutdown()

    @property
    def _plugin(self) -> AgentPlugin:
        assert self._made is not None  # noqa: S101 - nothing comes before `initialize`
        return self._made


@contextmanager
def _contained() -> Iterator[None]:
    """`sys.exit()` in a plugin ends what it is doing, not the event loop, and with it the worker."""
    try:
        yield
    except (Exception, asyncio.CancelledError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginCrashed(f"its code raised {type(error).__name__}: {error}") from error


def load_class(package: PluginPackage) -> type[AgentPlugin]:
    """The plugin's class. Raises `BadPlugin`."""
    with _importing:
        if package.entry:
            module_name, _, name = package.entry.partition(":")
            module = _imported(package, module_name)
        else:
            module_name, _, name = (package.manifest.entry or DEFAULT_MODULE).partition(":")
            module = _imported(package, f"{_parent_of(package).__name__}.{module_name}")
    return _class_in(package, module, name)


def _imported(package: PluginPackage, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # the plugin's module is anybody's code
        raise BadPlugin(
            f"agent plugin {package.id!r}: {module.rpartition('.')[2]} cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error


def _parent_of(package: PluginPackage) -> ModuleType:
    """A package made of the plugin's folder, so that its modules can import each other (`from .helper import …`), and
    two plugins may have modules of the same name."""
    folder = package.folder.resolve()
    name = f"shoal_agent_plugin_{re.sub(r'[^0-9A-Za-z_]', '_', package.id)}_{abs(hash(str(folder))):x}"
    if (known := sys.modules.get(name)) is not None:
        return known
    init = folder / "__init__.py"
    if init.is_file():
        spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(folder)])
    else:
        spec = importlib.util.spec_from_loader(name, loader=None, is_package=True)
    if spec is None:
        raise BadPlugin(f"agent plugin {package.id!r}: {folder} cannot be imported from")
    spec.submodule_search_locations = [str(folder)]
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        if spec.loader is not None:
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # as above
        del sys.modules[name]
        raise BadPlugin(
            f"agent plugin {package.id!r}: {init.name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return module


def _class_in(package: PluginPackage, module: ModuleType, name: str) -> type[AgentPlugin]:
    if name:
        found = getattr(module, name, None)
        if not (isinstance(found, type) and issubclass(found, AgentPlugin)):
            raise BadPlugin(f"agent plugin {package.id!r}: {name} of {module.__name__} is no subclass of AgentPlugin")
        return found
    own = [
        each
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, AgentPlugin)
        and each is not AgentPlugin
        and each.__module__ == module.__name__
    ]
    if len(own) != 1:
        named = ", ".join(each.__name__ for each in own) or "none"
        raise BadPlugin(
            f"agent plugin {package.id!r}: {module.__name__.rpartition('.')[2]}.py must have one subclass of "
            f"AgentPlugin, it has {named}: name yours in the manifest's `entry`, as `module:Class`"
        )
    return own[0]
