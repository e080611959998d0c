"""What the admin API is asked, and about which kinds of objects."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct

from queue_backends.messages import JsonObject
from worker.agents.listing import MOST_ON_A_PAGE
from worker.agents.registrar import Registrar
from worker.gateway.operation import Call

_PageNumber = Annotated[int, Meta(ge=1, le=1_000_000)]
_Limit = Annotated[int, Meta(ge=1, le=MOST_ON_A_PAGE)]


class Filter(Struct, frozen=True, kw_only=True):
    """Which objects to list."""

    namespace: str | None = None
    """That one's, and everybody's."""
    is_active: bool | None = None
    text: str = ""
    """In slug, name or description."""
    page: _PageNumber = 1
    limit: _Limit = 100


class AgentFilter(Filter, frozen=True, kw_only=True):
    """Which agents to list."""

    app: str = ""
    plugin: str = ""


class Where(Struct, frozen=True, kw_only=True):
    """Whose object it is."""

    namespace: str = ""
    """Empty: everybody's, or that of the caller's key."""


class VersionsWanted(Where, frozen=True, kw_only=True):
    """How many versions to list."""

    limit: _Limit = 100


class Rollback(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which version shall be the present one again."""

    version: Annotated[int, Meta(ge=1)]


class VersionView(Struct, frozen=True, kw_only=True):
    """What an object was."""

    version: int
    updated_at: float
    updated_by: str
    definition: JsonObject


class Versions(Struct, frozen=True, kw_only=True):
    """What an object was, the newest version first."""

    items: tuple[VersionView, ...]


class Kind(NamedTuple):
    """One kind of object in the API."""

    noun: str
    plural: str
    of: type[Any]
    tag: str
    switches: bool = True

    def registrar(self, call: Call) -> Registrar[Any]:
        """What does it."""
        found: Registrar[Any] = getattr(call.gateway.declarations, self.plural)
        return found
