"""A document as it is taken in, and how its passages are made. Pure."""

from __future__ import annotations

import hashlib
import re
import time

import msgspec
from msgspec import Struct

from worker.datasources.chunking import Chunk, chunks, heading_text
from worker.datasources.model import Datasource
from worker.datasources.passages import DocumentHead

MOST_CHARS = 8_000_000
"""In one document."""
MOST_TITLE_CHARS = 200
_FIRST_HEADING = re.compile(r"(?m)\A\s*#{1,2}[ \t]+(\S.*)$")
_VERSION = 1
"""Of how passages are made: another one makes all documents be taken in anew."""


class Document(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A text that can be taken in."""

    id: str
    """Such as its path; one of the same id is replaced."""
    text: str
    title: str = ""
    metadata: dict[str, str] = {}
    has_headings: bool = True
    """Whether lines that begin with `#` are headings, as in Markdown."""


def heading_of(text: str) -> str:
    """The heading that a text begins with, if it does: what it is called."""
    found = _FIRST_HEADING.match(text)
    return heading_text(found[1])[:MOST_TITLE_CHARS] if found else ""


def digest_of(document: Document, source: Datasource, made_by: str) -> str:
    """Changes with everything that the passages and their vectors are made of."""
    parts = (
        _VERSION,
        document.text,
        document.title,
        sorted(document.metadata.items()),
        document.has_headings,
        source.chunk_tokens,
        source.chunk_overlap_tokens,
        made_by,
    )
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:40]


def passages_of(document: Document, source: Datasource) -> list[Chunk]:
    """The document's passages, in order."""
    return chunks(
        document.text,
        most_tokens=source.chunk_tokens,
        overlap_tokens=source.chunk_overlap_tokens,
        with_headings=document.has_headings,
    )


def embedded_text(document: Document, chunk: Chunk) -> str:
    """What a passage's vector is made of: its text, and where it stands."""
    above = " > ".join(part for part in (document.title, chunk.heading) if part and part not in chunk.content)
    return f"{above}\n\n{chunk.content}" if above else chunk.content


def metadata_of(document: Document, chunk: Chunk) -> dict[str, str]:
    """What is told of a passage, beside its text."""
    own = {"document": document.id, "title": document.title, "heading": chunk.heading, "position": str(chunk.position)}
    return {**document.metadata, **{name: value for name, value in own.items() if value}}


def head_of(document: Document, digest: str, passages: int) -> DocumentHead:
    """What is kept of a document."""
    return DocumentHead(
        id=document.id,
        digest=digest,
        title=document.title,
        metadata=document.metadata,
        passages=passages,
        chars=len(document.text),
        updated_at=time.time(),
    )
