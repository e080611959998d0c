"""Tasks from a file with one JSON document a line."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from queue_backends import InvalidTask, Task
from queue_backends.messages import convert_task


def read_task_lines(path: Path, common: Mapping[str, Any]) -> Iterator[Task]:
    """Each line as a task: a JSON text is its prompt, a JSON object its fields. `common` fills what a line leaves open.

    `-` is stdin. Empty lines are skipped. Raises `InvalidTask` naming the file, the line and what is wrong there.
    """
    lines = sys.stdin if str(path) == "-" else path.open(encoding="utf-8")
    with lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _task(f"{path}: line {number}", line, common)


def _task(where: str, line: str, common: Mapping[str, Any]) -> Task:
    try:
        value = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise InvalidTask(f"{where} is no JSON: {error}") from error
    if isinstance(value, str):
        value = {"prompt": value}
    if not isinstance(value, dict):
        raise InvalidTask(f'{where}: expected a text or an object with "prompt", got {type(value).__name__}')
    known = set(Task.__struct_fields__) - {"id", "attempt"}
    if unknown := sorted(set(value) - known):
        raise InvalidTask(f"{where}: unknown field {unknown[0]!r}: use {', '.join(sorted(known))}")
    fields = {**{name: item for name, item in common.items() if item}, **value}
    if isinstance(meta := value.get("meta", {}), dict):  # anything else is refused below
        fields["meta"] = {**common.get("meta", {}), **meta}
    try:
        return convert_task(fields)
    except InvalidTask as error:
        raise InvalidTask(f"{where}: {error}") from error
