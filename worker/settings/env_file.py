"""Reads a file of environment variables, such as a secret that is mounted into a container.

A line is `NAME=value`, with or without `export` before it and quotes around the value; empty lines and lines that begin
with `#` are skipped. Nothing is expanded.
"""

from __future__ import annotations

import re
from pathlib import Path

from worker.errors import BadSetting

VARIABLE = "SHOAL_ENV_FILE"
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


def read_env_file(path: Path) -> dict[str, str]:
    """The file's variables. Raises `BadSetting` with file and line, and without the line's text: it may be a secret."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadSetting(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadSetting(f"cannot read {path}: it is no UTF-8 text (byte {error.start})") from error
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise BadSetting(f"{path}: line {number} is no variable: write NAME=value")
        values[match[1]] = _unquoted(match[2])
    return values


def _unquoted(value: str) -> str:
    is_quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if is_quoted else value
