"""What is known of a registered plugin: who it is, where, what it speaks, whether it is well."""

from __future__ import annotations

import enum

from msgspec import Struct

from providers.interfaces import ConfigParam
from providers.messages import ToolSpec
from providers.remote.dialect import Dialect


class Source(enum.StrEnum):
    """How a plugin came to be known."""

    SELF = "self"
    """It registered itself."""
    EXTERNAL = "external"
    """The settings name it (`plugins.external`)."""


class RemoteAction(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An action of an agent."""

    id: str
    permission: int = 0
    tool: ToolSpec
    """The action as a model is told of it."""


class RemoteInstance(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One process of a plugin; several of one name share its work."""

    name: str
    instance_id: str
    address: str
    dialect: Dialect
    plugin_type: int
    version: str = ""
    description: str = ""
    permission: int = 0
    tenant_id: str = ""
    """Empty: it serves every tenant."""
    source: Source = Source.SELF
    registered_at: float = 0.0
    """Unix seconds."""
    healthy: bool = True
    health_message: str = ""
    health_at: float = 0.0
    """When that was last found to be different. Unix seconds."""
    is_shoal: bool = False
    """It understands what the protocol has no place for (`payload.FULL`)."""
    params: tuple[ConfigParam, ...] = ()
    actions: tuple[RemoteAction, ...] = ()
