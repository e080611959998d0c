"""What is kept in a vector store, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct


class Passage(Struct, frozen=True, kw_only=True):
    """A piece of text that answers a question, perhaps."""

    content: str
    score: float
    """Cosine of the angle between question and passage: 1 means the same direction, 0 that they share nothing."""
    metadata: dict[str, str] = {}
    """`document`, `title`, `heading`, `position` (the first character), and whatever the document brought."""


class NewPassage(Struct, frozen=True, kw_only=True):
    """A piece of a document, ready to be stored."""

    content: str
    vector: Sequence[float]
    metadata: Mapping[str, str] = {}


class DocumentHead(Struct, frozen=True, kw_only=True):
    """What is known of a stored document."""

    id: str
    """Such as its path; unique in its data source."""
    digest: str = ""
    """Of its content, and of how its passages were made: equal means that nothing has changed."""
    title: str = ""
    metadata: dict[str, str] = {}
    passages: int = 0
    chars: int = 0
    updated_at: float = 0.0
    """Unix seconds."""


class NewDocument(Struct, frozen=True, kw_only=True):
    """A document with its passages, ready to be stored."""

    head: DocumentHead
    passages: Sequence[NewPassage]


class PassageFilter(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which documents are searched."""

    prefix: str = ""
    """Only documents whose id begins so."""
    metadata: dict[str, str] = {}
    """Only documents that have all of these, exactly."""

    def fits(self, head: DocumentHead) -> bool:
        """Whether a document is searched."""
        return head.id.startswith(self.prefix) and all(
            head.metadata.get(name) == value for name, value in self.metadata.items()
        )


EVERYTHING = PassageFilter()


class StoreSize(Struct, frozen=True, kw_only=True):
    """How much a store holds of one data source."""

    documents: int = 0
    passages: int = 0
