"""The tables of `docs/configuration.md`, from the table of settings: `python -m worker.settings.reference`."""

from __future__ import annotations

import enum
import sys
from typing import Any

from worker.settings.model import Settings
from worker.settings.setting import Setting
from worker.settings.table import SECTIONS


def markdown() -> str:
    """All settings as Markdown, one table a section."""
    return "\n".join(f"### {title}\n\n{_table(rows)}" for title, rows in SECTIONS.items())


def default_of(key: str) -> Any:
    """The default of a setting."""
    value: Any = Settings()
    for name in key.split("."):
        value = getattr(value, name, "")
    return value


def _table(rows: tuple[Setting, ...]) -> str:
    lines = ["| variable | in `shoal.yaml` | default | allowed | meaning |", "|---|---|---|---|---|"]
    for row in rows:
        variable = f"`{row.variable}`" if row.variable else "-"
        allowed = row.allowed.replace("|", "\\|")
        lines.append(f"| {variable} | `{row.key}` | {_default(row.key)} | {allowed} | {row.meaning} |")
    return "\n".join(lines) + "\n"


def _default(key: str) -> str:
    value = default_of(key)
    if value is None or value in ("", (), {}):
        return "-"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if value < 1e6 else f"{value:.0f}"
    return str(value.value if isinstance(value, enum.Enum) else value)


if __name__ == "__main__":
    sys.stdout.write(markdown())
