"""What a file says: text, Markdown, HTML, JSON, JSON lines, CSV, and PDF where `pypdf` is installed."""

from __future__ import annotations

import csv
import io
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from worker.datasources.documents import MOST_CHARS, MOST_TITLE_CHARS, Document, heading_of
from worker.datasources.reading.html import html_text

MOST_BYTES = 32 * 1024 * 1024
"""Of one file."""
_MOST_PAGES = 5000
"""Of a PDF; further ones are not read."""

_MARKDOWN = frozenset({".md", ".markdown", ".mdx"})
_PLAIN = frozenset({".txt", ".text", ".rst", ".adoc", ".org", ".tex"})
_HTML = frozenset({".html", ".htm", ".xhtml"})
_RECORDS = frozenset({".json", ".jsonl", ".ndjson", ".csv", ".tsv"})
_PDF = ".pdf"
_FRONT_MATTER = re.compile(r"\A---\r?\n.*?\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


class Skipped(Exception):
    """A file is not read; the message says why."""


def is_known(path: Path) -> bool:
    """Whether files of this kind are read without being asked for."""
    suffix = path.suffix.lower()
    return suffix in _MARKDOWN | _PLAIN | _HTML | _RECORDS or suffix == _PDF


def document_of(path: Path, document_id: str) -> Document:
    """The file as a document. What it is, its suffix tells; an unknown one means text. Raises `Skipped`."""
    raw = _bytes_of(path)
    suffix = path.suffix.lower()
    title, has_headings = "", True
    try:
        if suffix == _PDF:
            title, text = _pdf(raw)
            has_headings = False
        elif suffix in _RECORDS:
            text, has_headings = "\n\n".join(_records(suffix, _decoded(raw))), False
        elif suffix in _HTML:
            title, text = html_text(_decoded(raw))
        elif suffix in _MARKDOWN:
            text = _FRONT_MATTER.sub("", _decoded(raw), count=1)
        else:
            text, has_headings = _decoded(raw), False
    except (msgspec.DecodeError, csv.Error, RecursionError) as error:
        raise Skipped(f"it cannot be read as {suffix[1:]}: {error}") from error
    if len(text) > MOST_CHARS:
        raise Skipped(f"it has {len(text)} characters of text, at most {MOST_CHARS} are read")
    return Document(
        id=document_id,
        text=text,
        title=title[:MOST_TITLE_CHARS] or (heading_of(text) if has_headings else "") or path.stem,
        metadata={"path": document_id},
        has_headings=has_headings,
    )


def _bytes_of(path: Path) -> bytes:
    """Only of what is a file now: not of a link that was put in its place, and no more than it may have."""
    try:
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(opened, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Skipped("it is no regular file")
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise Skipped(error.strerror or str(error)) from error
    if len(raw) > MOST_BYTES:
        raise Skipped(f"it is larger than {MOST_BYTES // 1024 // 1024} MiB")
    return raw


def _decoded(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    if b"\0" in raw[:8192]:
        raise Skipped("it is no text")
    return raw.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\0", "")


def _records(suffix: str, text: str) -> Iterator[str]:
    if suffix in (".csv", ".tsv"):
        delimiter = "\t" if suffix == ".tsv" else ","
        rows = csv.DictReader(io.StringIO(text), restkey="further columns", delimiter=delimiter)
        yield from (_lines(row.items()) for row in rows)
    elif suffix == ".json":
        value = msgspec.json.decode(text)
        for record in value if isinstance(value, list) else [value]:
            yield _record(record)
    else:
        yield from (_record(msgspec.json.decode(line)) for line in text.splitlines() if line.strip())


def _record(value: Any) -> str:
    return _lines(value.items()) if isinstance(value, dict) else _plain(value)


def _lines(items: Iterable[tuple[Any, Any]]) -> str:
    return "\n".join(f"{name}: {_plain(value)}" for name, value in items if value not in (None, "", [], {}))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _pdf(raw: bytes) -> tuple[str, str]:
    try:
        import pypdf
    except ImportError as error:
        raise Skipped("PDF needs pypdf: pip install 'shoal[pdf]'") from error
    try:
        reader = pypdf.PdfReader(io.BytesIO(raw))
        text = "\n\n".join(page.extract_text() for page in itertools.islice(reader.pages, _MOST_PAGES))
        title = str((reader.metadata and reader.metadata.title) or "")
    except Exception as error:  # a broken file raises anything at all from within the library
        raise Skipped(f"it cannot be read as PDF: {type(error).__name__}: {error}") from error
    return title, text
