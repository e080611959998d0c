"""What a run is given: `--input`, in its forms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worker.teams.errors import BadInput

_HINT = 'use --input key=value (repeatable), --input \'{"key": "value"}\' or --input @file.json'


def read_inputs(given: Sequence[str]) -> dict[str, Any]:
    """The values that all `--input` flags give together: `key=value`, a JSON object, or `@` and a file with one (YAML
    also). Of a key that comes twice the later one counts. Raises `BadInput`.
    """
    found: dict[str, Any] = {}
    for text in given:
        found |= _read(text)
    return found


def _read(text: str) -> dict[str, Any]:
    stripped = text.strip()
    if stripped.startswith("@"):
        return _from_file(Path(stripped[1:]))
    key, separator, value = text.partition("=")
    if separator and key.strip() and not stripped.startswith(("{", "[", '"')):
        return {key.strip(): _value(key, value)}
    return _object(stripped, "--input")


def _value(key: str, value: str) -> str:
    """`key=@notes.md` is that file's text; `key=@@home` is `@home`."""
    if value.startswith("@@"):
        return value[1:]
    return _text_of(Path(value[1:]), f"--input {key}") if value.startswith("@") else value


def _from_file(path: Path) -> dict[str, Any]:
    text = _text_of(path, "--input")
    if path.suffix not in (".yaml", ".yml"):
        return _object(text, f"--input @{path}")
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"--input @{path} is no YAML: {error}") from error
    return _checked(value, f"--input @{path}")


def _object(text: str, where: str) -> dict[str, Any]:
    import msgspec

    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInput(f"{where} must be a JSON object of string values: {error}: {_HINT}") from error
    return _checked(value, where)


def _checked(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise BadInput(f"{where} must be a JSON object of string values: got {type(value).__name__}: {_HINT}")
    return value


def _text_of(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{where}: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}: {path} is no UTF-8 text (byte {error.start})") from error
