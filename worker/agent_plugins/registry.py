"""Which agent plugins are here: those of installed distributions, and those in the plugin folder.

Entry points of group `shoal.agent_plugins` name a class, `package.module:Class`; manifest and schema are files beside
that module. In the folder (`SHOAL_AGENT_PLUGINS_DIR`) each plugin is a folder with a manifest, or a package with one in
it. Nothing of a plugin's code is imported before an agent runs on it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from msgspec.structs import replace

from queue_backends.messages import JsonObject
from worker.agent_plugins.declared import FIRST_NUMBER, DeclaredPlugin, declared_package
from worker.agent_plugins.errors import BadPlugin, PluginNotFound
from worker.agent_plugins.manifest import MANIFEST_FILE
from worker.agent_plugins.package import PluginPackage, broken_package, manifest_folders, read_package
from worker.objects import ObjectStore

if TYPE_CHECKING:
    from worker.settings import Settings

ENTRY_POINTS = "shoal.agent_plugins"

log = structlog.get_logger(__name__)


class AgentPlugins:
    """The plugins of this process, as they were found when it started."""

    def __init__(
        self,
        packages: Sequence[PluginPackage] = (),
        *,
        declared: ObjectStore[DeclaredPlugin] | None = None,
        folder: str | Path = "",
    ) -> None:
        """`declared`: programs in `folder` that were declared over an API; they come and go."""
        self._declared = declared
        self._folder = folder
        self._packages: dict[str, PluginPackage] = {}
        for package in packages:
            self._add(package)

    @classmethod
    def found(cls, folder: str | Path = "", declared: ObjectStore[DeclaredPlugin] | None = None) -> AgentPlugins:
        """All that are here: those in `folder`, then installed ones; of two with the same id the first counts. One that
        cannot be read is there with its problem, and keeps nothing else from being found."""
        packages = [*(_in_folder(Path(folder)) if folder else ()), *_installed()]
        return cls(packages, declared=declared, folder=folder)

    @classmethod
    def of(cls, settings: Settings, declared: ObjectStore[DeclaredPlugin] | None = None) -> AgentPlugins:
        """All that are here, with the folder that the settings name."""
        return cls.found(settings.agent_plugins_dir, declared)

    def __len__(self) -> int:
        return len(self._packages)

    def all(self) -> Sequence[PluginPackage]:
        """All installed plugins, by id; those with a problem too."""
        return [self._packages[name] for name in sorted(self._packages)]

    def get(self, plugin_id: str) -> PluginPackage:
        """The installed plugin of an id; of declared ones `usable` knows. Raises `PluginNotFound`."""
        found = self._packages.get(plugin_id)
        if found is None:
            known = ", ".join(sorted(self._packages)) or "none"
            raise PluginNotFound(f"no agent plugin {plugin_id[:100]!r} is installed here; installed: {known}")
        return found

    def usable(self, plugin_id: str) -> PluginPackage:
        """The plugin of an id, installed or declared, if agents can run on it. Raises `PluginNotFound`, `BadPlugin`."""
        found = self._find(plugin_id)
        if found.problem:
            raise BadPlugin(f"agent plugin {plugin_id!r} cannot be used: {found.problem}")
        return found

    def by_number(self, number: int) -> PluginPackage:
        """The plugin of a number: `PluginPackage.number` of an installed one, from `FIRST_NUMBER` on of a declared one.

        Raises `PluginNotFound`.
        """
        stored = self._declared.by_id(number - FIRST_NUMBER) if self._declared is not None else None
        if stored is not None:
            package = declared_package(stored, self._folder)
            if package.id in self._packages:  # which is the one that agents of that id run on
                return replace(package, problem="an installed plugin has the same id")
            return package
        for package in self.all():
            if package.number == number:
                return package
        raise PluginNotFound(f"no agent plugin has the number {number}")

    def check_config(self, plugin_id: str, config: JsonObject) -> None:
        """Raises `BadPluginConfig` for what an agent of the plugin may not be configured with; `PluginNotFound`,
        `BadPlugin` if there is nothing to check it against."""
        package = self.usable(plugin_id)
        package.schema.check(plugin_id, {**package.base_config, **config})

    def _find(self, plugin_id: str) -> PluginPackage:
        """As `get`, of those that were declared, too."""
        stored = self._declared.get(plugin_id) if self._declared is not None else None
        if stored is None or plugin_id in self._packages:
            return self.get(plugin_id)
        return declared_package(stored, self._folder)

    def _add(self, package: PluginPackage) -> None:
        before = self._packages.get(package.id)
        if before is not None:
            log.warning("an agent plugin is left out", plugin=package.id, where=package.source, other=before.source)
            return
        if package.problem:
            log.warning("an agent plugin cannot be used", plugin=package.id, why=package.problem)
        self._packages[package.id] = package


def _installed() -> list[PluginPackage]:
    points = sorted(importlib.metadata.entry_points(group=ENTRY_POINTS), key=lambda point: point.name)
    return [_of_entry_point(point) for point in points]


def _of_entry_point(point: importlib.metadata.EntryPoint) -> PluginPackage:
    distribution = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
    try:
        folder = _folder_of(point.module)
        return read_package(folder, entry=point.value, distribution=distribution)
    except BadPlugin as error:
        return broken_package(point.name, Path(), error, distribution=distribution)


def _folder_of(module: str) -> Path:
    """The folder of a module's file, without importing anything of it. Raises `BadPlugin`."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError) as error:
        raise BadPlugin(f"module {top!r} cannot be found: {error}") from error
    if spec is None:
        raise BadPlugin(f"module {top!r} cannot be found")
    for location in spec.submodule_search_locations or [str(Path(spec.origin or ".").parent)]:
        folder = Path(location).joinpath(*rest)
        for near in (folder, folder.parent):
            if (near / MANIFEST_FILE).is_file():
                return near
    raise BadPlugin(f"there is no {MANIFEST_FILE} beside module {module!r}: it belongs into the package's data")


def _in_folder(folder: Path) -> list[PluginPackage]:
    try:
        folders = [found for path in sorted(folder.iterdir()) for found in manifest_folders(path)]
    except OSError as error:
        log.warning("the folder of agent plugins cannot be read", folder=str(folder), error=error.strerror)
        return []
    return [_of_folder(path) for path in folders]


def _of_folder(folder: Path) -> PluginPackage:
    try:
        return read_package(folder)
    except BadPlugin as error:
        return broken_package(folder.name, folder, error)
