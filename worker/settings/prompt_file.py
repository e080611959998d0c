"""A system prompt that is kept in a file of its own."""

from __future__ import annotations

from pathlib import Path

from worker.errors import BadSetting


def read_prompt_file(name: str, *, beside: Path | None = None) -> str:
    """The file's text, trimmed. A relative name is looked up beside the file that names it, if there is one.

    Raises `BadSetting` in ark's words.
    """
    path = Path(name).expanduser()
    if beside is not None:
        path = beside.parent / path
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise BadSetting(f"reading system prompt from {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadSetting(f"reading system prompt from {path}: it is no UTF-8 text (byte {error.start})") from error
    if not text:
        raise BadSetting(f"system prompt file {path} is empty")
    return text
