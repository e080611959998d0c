"""Which files there are under a path: bounded in number, and never outside of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from worker.datasources.errors import IngestFailed
from worker.datasources.reading.files import is_known
from worker.datasources.reading.patterns import Patterns

MOST_FILES = 20_000
_MOST_DEPTH = 40


class FoundFile(Struct, frozen=True):
    """One file that may be read."""

    path: Path
    id: str
    """Its document's id: the folder's name, and the path within it."""


class Found(Struct, kw_only=True):
    """What is under some paths."""

    files: list[FoundFile] = []
    prefixes: list[str] = []
    """What the ids of all documents of the folders begin with."""
    skipped: dict[str, str] = {}
    """Path -> why it is not read. Not those that a pattern leaves out."""
    unseen: list[str] = []
    """What the ids of documents begin with whose folders could not be looked into: nobody knows which there are."""
    paths: dict[str, Path] = {}
    """By id."""


def found_under(
    paths: Sequence[Path], *, exclude: Sequence[str] = (), include: Sequence[str] = (), name: str = ""
) -> Found:
    """All files under folders, and files that are named themselves.

    Symbolic links are not followed, except for the paths given. Hidden files and folders are left out, and files of a
    kind that is not known, unless `include` fits them. `name` stands in ids for the folder's own.

    Raises `IngestFailed` for a path that does not exist, for two of one name, and for too many files.
    """
    found = Found(files=[], prefixes=[], skipped={}, unseen=[], paths={})
    left_out, wanted = Patterns(exclude), Patterns(include)
    for path in paths:
        top = path.resolve()
        if not top.exists():
            raise IngestFailed(f"{path} does not exist")
        called = name or top.name
        if top.is_file():
            _add(found, FoundFile(top, f"{name}/{top.name}" if name else top.name))
            continue
        if f"{called}/" in found.prefixes and not name:
            raise IngestFailed(f"two folders are called {called!r}: ingest them one by one, with --as NAME")
        found.prefixes.append(f"{called}/")
        for file, within in _walk(top, f"{called}/", "", left_out, found):
            if is_known(file) or wanted.fit(within, is_folder=False):
                _add(found, FoundFile(file, f"{called}/{within}"))
    return found


def _add(found: Found, file: FoundFile) -> None:
    before = found.paths.setdefault(file.id, file.path)
    if before != file.path:
        raise IngestFailed(f"{before} and {file.path} would both be {file.id!r}: use --as NAME, or the folder above")
    if len(found.files) >= MOST_FILES:
        raise IngestFailed(f"there are more than {MOST_FILES} files: ingest parts of the folder, or --exclude some")
    found.files.append(file)


def _is_no_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def _walk(folder: Path, called: str, within: str, left_out: Patterns, found: Found) -> Iterator[tuple[Path, str]]:
    if within.count("/") > _MOST_DEPTH:
        found.skipped[str(folder)] = f"more than {_MOST_DEPTH} folders deep"
        found.unseen.append(called + within)
        return
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        found.skipped[str(folder)] = error.strerror or str(error)
        found.unseen.append(called + within)
        return
    for entry in entries:
        if not entry.name.isprintable() and _is_no_text(entry.name):
            found.skipped[repr(entry.name)] = "its name is no UTF-8"
            continue
        path = f"{within}{entry.name}"
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name.startswith(".") or left_out.fit(path, is_folder=is_folder):
            continue
        if entry.is_symlink():
            found.skipped[str(folder / entry.name)] = "a symbolic link"
        elif is_folder:
            yield from _walk(folder / entry.name, called, f"{path}/", left_out, found)
        elif entry.is_file(follow_symlinks=False):
            yield folder / entry.name, path
