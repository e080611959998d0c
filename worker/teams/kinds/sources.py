"""Values from outside of a document: Secrets and ConfigMaps of the file, mounted secrets, `.env`, the environment.

What comes from here never enters a plan or a message: it ends in the bundle's `env`.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from pathlib import Path

from worker.errors import BadSetting
from worker.teams.kinds.findings import Findings
from worker.teams.kinds.nodes import Node
from worker.teams.kinds.objects import Fields

SECRETS_FOLDER = "SHOAL_SECRETS_DIR"
_ENV_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")
_FILE_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")
_MAX_BYTES = 1_000_000


class Sources:
    """Looks values up, and remembers those that are to be put into the environment."""

    def __init__(self, beside: Path, environ: Mapping[str, str] | None = None) -> None:
        self.beside = beside
        self._environ = os.environ if environ is None else environ
        self._maps: dict[tuple[str, str], dict[str, str]] = {}
        self.env: dict[str, str] = {}
        self._dot_env = read_env_file(beside / ".env")
        self.env.update({name: value for name, value in self._dot_env.items() if name not in self._environ})

    def file(self, name: str) -> Path:
        """A file in the folder of the team file, or below. Raises `BadSetting`."""
        folder = self.beside.resolve()
        try:
            path = (folder / name).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a NUL in it; links that go round
            raise BadSetting(f"{name!r} is no path: {error}") from error
        if not path.is_relative_to(folder):
            raise BadSetting(f"{name!r} is outside of the file's folder: move it there")
        return path

    def declare(self, kind: str, name: str, values: Mapping[str, str]) -> None:
        """The values of a Secret or ConfigMap document."""
        self._maps[kind, name] = dict(values)

    def whole(self, kind: str, name: str) -> dict[str, str] | None:
        """All values of a Secret or ConfigMap; None if there is none of that name."""
        declared = self._maps.get((kind, name))
        mounted = self._mounted(name) if kind == "Secret" else {}
        if declared is None and not mounted:
            return None
        return {**(declared or {}), **mounted}

    def value(self, kind: str, name: str, key: str) -> str | None:
        """One value: of a mounted secret, a document, `.env`, or the environment variable with the key as its name."""
        found = self.whole(kind, name)
        if found is not None and key in found:
            return found[key]
        return self._dot_env.get(key, self._environ.get(key)) if kind == "Secret" else None

    @property
    def folder(self) -> str:
        """Where secrets are mounted; empty: nowhere."""
        return self._environ.get(SECRETS_FOLDER, "")

    def put(self, name: str, value: str) -> None:
        """Have the embedded run see it in its environment. What is there already stays."""
        if name not in self._environ:
            self.env.setdefault(name, value)

    def is_set(self, name: str) -> bool:
        """Whether the environment or `.env` has it, whatever the file says."""
        return name in self._environ or name in self._dot_env

    def secret(self, selector: Fields, findings: Findings) -> str:
        """The environment variable for a key of a Secret; its value is put there if it is known."""
        name, key = selector.text("name"), selector.text("key")
        variable = secret_variable(name, key)
        value = self.value("Secret", name, key)
        if value is not None:
            self.put(variable, value)
        elif variable not in self._environ and not selector.get("optional"):
            findings.note_once(
                f"secret {name}/{key}",
                selector.node,
                f"key {key!r} of Secret {name!r} is not known here: its value is taken from the environment variable "
                f"{variable}",
            )
        return variable

    def _mounted(self, name: str) -> dict[str, str]:
        folder = self._environ.get(SECRETS_FOLDER, "")
        if not folder or not is_folder_name(name):
            return {}
        found: dict[str, str] = {}
        try:
            for path in sorted((Path(folder) / name).iterdir()):
                if path.is_file() and path.stat().st_size <= _MAX_BYTES:
                    found[path.name] = path.read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError):
            return found
        return found


def is_folder_name(name: str) -> bool:
    """Whether a Secret of this name can be mounted as a folder."""
    return _FILE_NAME.fullmatch(name) is not None and name.strip(".") != ""


def secret_variable(name: str, key: str) -> str:
    """The environment variable that holds a key of a Secret: `slack-alerts` and `webhookUrl` give
    `SLACK_ALERTS_WEBHOOKURL`."""
    variable = re.sub(r"[^A-Z0-9]+", "_", f"{name}_{key}".upper()).strip("_")
    return variable if variable[:1].isalpha() else f"SECRET_{variable}"


def read_env_file(path: Path) -> dict[str, str]:
    """`NAME=value` lines; `#` begins a comment, quotes around a value are not part of it. No file: nothing."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    found: dict[str, str] = {}
    for line in lines:
        match = _ENV_LINE.fullmatch(line)
        if match:
            found[match[1]] = _unquoted(match[2].strip())
    return found


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value.partition(" #")[0].rstrip()


def secret_values(spec: Mapping[str, Node], findings: Findings) -> dict[str, str]:
    """`data` (base64) and `stringData` of a Secret."""
    found: dict[str, str] = {}
    for key, node in _entries(spec.get("data"), findings):
        try:
            found[key] = base64.b64decode("".join(node.text.split()), validate=True).decode()
        except (binascii.Error, ValueError):
            findings.error(node, "the value is no base64 of a text: use stringData for plain text")
    found.update({key: node.text for key, node in _entries(spec.get("stringData"), findings)})
    return found


def config_map_values(spec: Mapping[str, Node], findings: Findings) -> dict[str, str]:
    """`data` of a ConfigMap."""
    return {key: node.text for key, node in _entries(spec.get("data"), findings)}


def _entries(node: Node | None, findings: Findings) -> list[tuple[str, Node]]:
    if node is None or node.is_null:
        return []
    if node.kind != "map":
        findings.error(node, f"it is {node.type_name}: use a mapping of names to text")
        return []
    found = []
    for key, below in node.entries.items():
        if below.kind == "scalar":
            found.append((key, below))
        else:
            findings.error(below, f"it is {below.type_name}: use text")
    return found
