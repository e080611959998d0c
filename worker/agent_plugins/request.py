"""What a plugin is given: one message, and what may be used to answer it."""

from __future__ import annotations

from msgspec import Struct

from providers.messages import Message, ToolSpec
from queue_backends.messages import JsonObject


class PluginSession(Struct, frozen=True, kw_only=True):
    """A session of a person with an agent."""

    id: str
    agent: str
    tenant: str = ""


class AvailableLlm(Struct, frozen=True, kw_only=True):
    """A model that the plugin may call."""

    slug: str
    name: str = ""
    provider: str = ""
    model: str = ""
    """The default one; others are `allowed_models`, patterns."""
    allowed_models: tuple[str, ...] = ()
    privacy_score: int = 0


class AvailableDatasource(Struct, frozen=True, kw_only=True):
    """A data source that the plugin may query."""

    slug: str
    name: str = ""
    description: str = ""
    store: str = ""
    privacy_score: int = 0


class RequestContext(Struct, frozen=True, kw_only=True):
    """On whose behalf."""

    task_id: str
    agent: str
    tenant: str = ""
    user: str = ""
    """Who asks, as far as the engine says so (`meta["user"]`)."""
    app: str = ""
    meta: dict[str, str] = {}
    """The task's free fields."""
    attempt: int = 0
    """How often the message was already tried and failed."""
    redelivered: bool = False
    """Somebody has begun with this message before: answers that were recorded are given again."""


class AgentRequest(Struct, frozen=True, kw_only=True):
    """One message to an agent."""

    message: str
    history: tuple[Message, ...] = ()
    """What was said before, oldest first."""
    session_id: str = ""
    conversation_id: str = ""
    config: JsonObject = {}
    """The agent's own, with the defaults of the plugin's schema."""
    tools: tuple[ToolSpec, ...] = ()
    llms: tuple[AvailableLlm, ...] = ()
    """Those of the agent's app, its default first. Empty: it has none, or uses the worker's own model."""
    datasources: tuple[AvailableDatasource, ...] = ()
    context: RequestContext

    @property
    def session(self) -> PluginSession:
        """The session that it belongs to; with an empty id if it belongs to none."""
        return PluginSession(id=self.session_id, agent=self.context.agent, tenant=self.context.tenant)
