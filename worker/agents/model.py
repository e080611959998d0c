"""What people declare: models (`Llm`), apps that bind models, tools and data sources, and agents that use an app."""

from __future__ import annotations

import enum

from msgspec import Struct

from queue_backends.messages import JsonObject
from worker.loop_policy.model import LoopPolicy


class PermissionScope(enum.StrEnum):
    """What an agent plugin may ask its host for. Source: the service scopes of AI Studio's plugin manifests."""

    LLMS_PROXY = "llms.proxy"
    TOOLS_EXECUTE = "tools.execute"
    """`tools.call` is the same."""
    DATASOURCES_QUERY = "datasources.query"
    KV_READWRITE = "kv.readwrite"


class Llm(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A model that apps may use: where it is called, and which of its provider's models may be asked for."""

    slug: str = ""
    """Its address; empty in a new one: made of its name."""
    name: str = ""
    """For people; empty: the slug."""
    namespace: str = ""
    description: str = ""
    provider: str = ""
    """Registry name; empty: found from the model's name."""
    model: str = ""
    """The default model."""
    allowed_models: tuple[str, ...] = ()
    """Patterns of models that may be asked for beside the default one; empty: none."""
    route: str = ""
    """A route that its calls take, instead of to `provider` and `model`."""
    base_url: str = ""
    api_key_env: str = ""
    """Name of the workers' environment variable that holds the key; the key itself is never part of an object."""
    options: JsonObject = {}
    """Settings that only its provider knows, as `AgentConfig.options`."""
    privacy_score: int = 0
    is_active: bool = True


class App(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What belongs together: the models, tools and data sources that its agents, and its keys, may use. No others."""

    slug: str = ""
    """Its address; empty in a new one: made of its name."""
    name: str = ""
    namespace: str = ""
    description: str = ""
    llms: tuple[str, ...] = ()
    """Slugs of `Llm` objects; the first is the default."""
    tools: tuple[str, ...] = ()
    """Names or patterns of tools."""
    datasources: tuple[str, ...] = ()
    """Slugs of data sources."""
    scopes: tuple[PermissionScope, ...] = tuple(PermissionScope)
    """What its plugins are granted, of what their manifests ask for."""
    is_active: bool = True


class Group(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An access group: callers that have it see the agents that name it."""

    slug: str = ""
    """Its address; empty in a new one: made of its name."""
    name: str = ""
    namespace: str = ""
    description: str = ""


class Memory(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How much of a conversation a run begins with."""

    max_tokens: int = 32_000
    """Of history, estimated. What is older is summarised, or left out."""
    summarise: bool = True
    max_messages: int = 1000


class Agent(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An agent: a model with a prompt and tools, or a plugin's code. Tasks name it by its slug."""

    slug: str = ""
    """Its address; empty in a new one: made of its name."""
    name: str = ""
    namespace: str = ""
    """Whose it is (a tenant); empty: everybody's."""
    description: str = ""
    plugin: str = ""
    """Id of the agent plugin that answers; empty: a plain model agent, run by the tool loop."""
    app: str = ""
    """Slug of its app. Empty: an operator's own agent, which may use whatever its workers have."""
    llm: str = ""
    """Slug of one of its app's models; empty: the app's first, or `provider`, `model` and `route` below."""
    provider: str = ""
    model: str = ""
    route: str = ""
    system_prompt: str = ""
    tools: tuple[str, ...] | None = None
    """Names or patterns, within the app's; None: all of the app's."""
    datasources: tuple[str, ...] | None = None
    """Slugs, within the app's; None: all of the app's."""
    settings: JsonObject = {}
    """Further fields of `providers.AgentConfig`, such as `{"max_tokens": 2000, "max_turns": 10}`. Those that say where
    a model is called are its app's models' affair, if it has an app."""
    budget: JsonObject = {}
    """A budget rule for this agent alone, such as `{"period": "month", "usd": 100}`."""
    memory: Memory = Memory()
    loop_policy: LoopPolicy | None = None
    """What happens around its tool calls, beside making them; None: as the workers' settings say."""
    groups: tuple[str, ...] = ()
    """Slugs of access groups; empty: everybody who may use agents."""
    config: JsonObject = {}
    """The plugin's own configuration; fits its `config.schema.json`."""
    is_active: bool = True

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.name or self.slug
