"""One plugin as it is installed: its manifest, its schema, and where its code is."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

from msgspec import Struct

from queue_backends.messages import JsonObject
from worker.agent_plugins.config_schema import SCHEMA_FILE, ConfigSchema
from worker.agent_plugins.errors import BadPlugin
from worker.agent_plugins.manifest import MANIFEST_FILE, Manifest, read_manifest
from worker.agents.model import PermissionScope

MOST_FILE_BYTES = 1024 * 1024


class PluginPackage(Struct, frozen=True, kw_only=True):
    """A plugin that is here. One with a `problem` cannot be used, and says why."""

    id: str
    manifest: Manifest
    schema: ConfigSchema
    folder: Path
    """Where the manifest is."""
    entry: str = ""
    """Of an installed distribution: `package.module:Class`."""
    distribution: str = ""
    """Which distribution brought it; empty: a folder."""
    problem: str = ""
    base_config: JsonObject = {}
    """What all its agents are configured with, unless they say otherwise."""
    checksum: str = ""
    """SHA-256 of the program, hexadecimal; empty: not checked."""

    @property
    def number(self) -> int:
        """The same on every machine, for APIs that address plugins by a number: from 1 to 2³¹-1."""
        return (zlib.crc32(self.id.encode()) & 0x7FFF_FFFF) or 1

    @property
    def is_usable(self) -> bool:
        """Whether agents can run on it."""
        return not self.problem

    @property
    def scopes(self) -> frozenset[PermissionScope]:
        """What it asks for."""
        return self.manifest.scopes

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        return self.distribution or str(self.folder)

    def config_for(self, config: JsonObject) -> JsonObject:
        """An agent's configuration as the plugin sees it, with all defaults."""
        return self.schema.with_defaults({**self.base_config, **config})

    def check_program(self) -> None:
        """Raises `BadPlugin` if the program is not the one that was declared. Reads it: not for the event loop."""
        if not self.checksum:
            return
        program = self.folder / self.manifest.command
        try:
            with program.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BadPlugin(f"{program} cannot be read: {error.strerror or error}") from error
        if found != self.checksum.lower().removeprefix("sha256:"):
            raise BadPlugin(f"{program} has the SHA-256 {found}, declared was {self.checksum}: it is not started")

    def status(self) -> JsonObject:
        """What APIs and `shoal plugin list` show."""
        return {
            "id": self.id,
            "number": self.number,
            "name": self.manifest.name or self.id,
            "version": self.manifest.version,
            "description": self.manifest.description,
            "hooks": list(self.manifest.hooks),
            "scopes": sorted(self.scopes),
            "runner": self.manifest.runner_kind,
            "source": self.source,
            "is_active": self.is_usable,
            "problem": self.problem,
            "config_schema": self.schema.schema,
        }


def read_package(folder: Path, *, entry: str = "", distribution: str = "") -> PluginPackage:
    """The package whose manifest is in a folder. Raises `BadPlugin`."""
    path = folder / MANIFEST_FILE
    manifest = read_manifest(_text(path), str(path))
    schema_path = folder / SCHEMA_FILE
    schema = ConfigSchema.read(_text(schema_path), str(schema_path)) if schema_path.is_file() else ConfigSchema()
    return PluginPackage(
        id=manifest.id, manifest=manifest, schema=schema, folder=folder, entry=entry, distribution=distribution
    )


def manifest_folders(folder: Path) -> list[Path]:
    """Where manifests are: the folder itself, or those in it, as in what `shoal plugin new` writes."""
    if (folder / MANIFEST_FILE).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST_FILE}")) if folder.is_dir() else []


def broken_package(name: str, folder: Path, error: Exception, *, distribution: str = "") -> PluginPackage:
    """What stands in the list for a package that cannot be read."""
    manifest = Manifest(id=name, name=name, version="", plugin_type="agent")
    return PluginPackage(
        id=name,
        manifest=manifest,
        schema=ConfigSchema(),
        folder=folder,
        distribution=distribution,
        problem=str(error) or type(error).__name__,
    )


def _text(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            raise BadPlugin(f"{path} has more than {MOST_FILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise BadPlugin(f"{path} cannot be read: {error.strerror or error}") from error
