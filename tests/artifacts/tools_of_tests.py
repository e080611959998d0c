"""Tools that make files, as somebody would write them."""

from __future__ import annotations

import os
from pathlib import Path

from worker.tools import ToolContext, tool


@tool
async def save(name: str, text: str, context: ToolContext) -> str:
    """Store a file at once."""
    assert context.artifacts is not None
    return await context.artifacts.save(name, text)


@tool(idempotent=True)
def draw(name: str, text: str, context: ToolContext) -> str:
    """Write a file as a program would that only knows a folder."""
    assert context.artifacts is not None
    (context.artifacts.folder / name).write_text(text)
    return f"drawn in {context.artifacts.folder}"


@tool
def litter(context: ToolContext) -> str:
    """Leave what is no artifact: a link out of the folder, a hidden file, a folder."""
    assert context.artifacts is not None
    folder = context.artifacts.folder
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / ".hidden").write_text("h")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "file").write_text("d")
    os.mkfifo(folder / "pipe")
    return "done"


@tool
def has_files(context: ToolContext) -> str:
    """Say whether there is a place for files."""
    return "no" if context.artifacts is None else "yes"


@tool
def shared(path: str, text: str) -> str:
    """Write a file wherever it is told to."""
    Path(path).write_text(text)
    return "written"
