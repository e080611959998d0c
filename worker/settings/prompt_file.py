"""A system prompt that is kept in a file of its own."""

from __future__ import annotations

from pathlib import Path

from worker.errors import BadSetting

MOST_BYTES = 4 * 1024 * 1024


def _read(path: Path) -> bytes:
    """Of a regular file alone: a pipe would be waited for, and a device never ends."""
    if path.exists() and not path.is_file():
        raise BadSetting(f"reading system prompt from {path}: it is no regular file")
    with path.open("rb") as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise BadSetting(f"reading system prompt from {path}: it has more than {MOST_BYTES} bytes")
    return raw


def read_prompt_file(name: str, *, beside: Path | None = None) -> str:
    """The file's text, trimmed. A relative name is looked up beside the file that names it, if there is one.

    Raises `BadSetting` in ark's words.
    """
    path = Path(name).expanduser()
    if beside is not None:
        path = beside.parent / path
    try:
        text = _read(path).decode("utf-8").strip()
    except OSError as error:
        raise BadSetting(f"reading system prompt from {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadSetting(f"reading system prompt from {path}: it is no UTF-8 text (byte {error.start})") from error
    if not text:
        raise BadSetting(f"system prompt file {path} is empty")
    return text
