"""`Plan`: all that a run goes by, made from a file's documents once and never changed: the scheduler, the workers, the
pictures and the pages read the same one. It is stored by the digest of its content, and holds no secret."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from providers import AgentConfig
from queue_backends.messages import JsonObject, encode_json
from worker.loop_policy.model import LoopPolicy
from worker.teams.errors import TeamNotFound
from worker.tools.config import McpServer, WebhookTool

ROUTER = "(router)"
"""Role and step of a routed team that chooses a capability."""
ROUTE = "route"
"""Step of a routed team that does the work. Its name is kubeswarm's."""


class Capability(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that an agent says it can do, for routed teams and `registryLookup`."""

    name: str
    description: str = ""
    tags: tuple[str, ...] = ()


class MemorySpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a role remembers across tasks. Source: ArkMemory, SwarmMemory."""

    backend: Literal["in-context", "redis", "vector-store"] = "in-context"
    name: str = ""
    """Of the memory: roles that name the same one share it."""
    url_env: str = ""
    """Environment variable with the Redis URL, or the vector store's key; empty: the fleet's own state store."""
    ttl_s: int = 0
    """How long an entry is kept; 0: as long as runs are."""
    max_entries: int = 0
    """0: no limit."""
    provider: str = ""
    """Vector store: `qdrant`, `pgvector`, `embedded`; empty: `embedded`."""
    endpoint: str = ""
    collection: str = ""
    embed_model: str = ""
    embed_provider: str = ""
    embed_dimensions: int = 0
    embed_base_url: str = ""
    embed_api_key_env: str = ""
    top_k: int = 3
    min_similarity: float = 0.70
    recalls: bool = True
    """Whether its role is told what is in it."""
    keeps: bool = True
    """Whether what its role does is added to it."""


SavedAs = Literal["", "text", "json", "markdown", "yaml"]


class Role(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who does a step, or a delegated task: an agent of its own, one that the fleet has, or another team."""

    name: str
    description: str = ""
    config: AgentConfig = field(default_factory=lambda: AgentConfig(model=""))
    """With the composed system prompt. An empty `model` is the worker's own. Its `tools` choose among the tools of the
    worker; those declared here, and the team's own, come beside them."""
    agent: str = ""
    """An agent that the fleet has declared: it is used instead of `config`. Empty: none."""
    team: str = ""
    """A team of the plan that fulfils the role, in a run of its own. Empty: none."""
    mcp_servers: tuple[McpServer, ...] = ()
    webhook_tools: tuple[WebhookTool, ...] = ()
    can_delegate: tuple[str, ...] = ()
    """Roles that it may delegate to; empty: it is a leaf."""
    approve_tools: tuple[str, ...] = ()
    """Names or patterns of tools whose calls a person has to approve."""
    approval: Approval | None = None
    """How those are asked for; None: as `Approval` has it."""
    max_parallel: int = 0
    """At most so many of its tasks at the same time in one run (replicas times concurrent tasks). 0: no limit."""
    timeout_s: float = 0.0
    """For one task; 0: the worker's own limit."""
    daily_tokens: int = 0
    """Tokens in any 24 hours; 0: no limit."""
    memory: MemorySpec | None = None
    loop_policy: LoopPolicy | None = None
    """What happens around its tool calls; None: as its agent, or the worker, has it."""
    advisors: dict[str, AgentConfig] = {}
    """Advisors of its loop policy that are agents of the same file: by name, what they are asked with."""
    capabilities: tuple[Capability, ...] = ()
    save_output: SavedAs = ""
    """As what its answers are kept as files, too; empty: as the worker has it."""


class InputSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A parameter of a team."""

    name: str
    type: Literal["string", "number", "boolean", "object", "array"] = "string"
    description: str = ""
    required: bool = False
    default: str | None = None


class Loop(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step is repeated while the condition holds after it."""

    condition: str
    max_iterations: int = 10


class Validation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an output has to pass. The checks run in this order: reject, contains, schema, semantic."""

    reject_patterns: tuple[str, ...] = ()
    contains: str = ""
    schema: JsonObject | None = None
    semantic: str = ""
    semantic_model: str = ""
    on_failure: Literal["fail", "retry"] = "fail"
    max_retries: int = 2


class ContextPolicy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What later steps see of an output."""

    strategy: Literal["full", "compress", "extract", "none"] = "full"
    target_tokens: int = 0
    model: str = ""
    prompt: str = ""
    path: str = ""
    """`extract`: a JSONPath, or a regular expression for prose."""


class Approval(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person has to say yes first. Nobody's slot is held while the run waits."""

    message: str = ""
    """A template: what is asked."""
    timeout_s: float = 86_400.0
    fallback: Literal["reject", "approve", "skip"] = "reject"
    """What happens if nobody answers in time. `skip` skips the step; for a tool it is as `reject`."""
    webhook: str = ""
    """URL that is told of the question; empty: none."""
    webhook_env: str = ""
    """Environment variable with that URL."""


class Lookup(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The step's role is found by what it can do, when the step begins."""

    capability: str
    """A name, or a template that evaluates to one."""
    tags: tuple[str, ...] = ()
    strategy: Literal["least-busy", "round-robin", "random"] = "least-busy"
    fallback: str = ""


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node of a team's graph."""

    name: str
    role: str
    inputs: dict[str, str] = {}
    """Key -> template, in the file's order."""
    depends_on: tuple[str, ...] = ()
    condition: str = ""
    """`if`: a template; falsy skips the step."""
    loop: Loop | None = None
    output_schema: JsonObject | None = None
    validation: Validation | None = None
    context_policy: ContextPolicy | None = None
    max_output_bytes: int = 65_536
    """What is kept of an output; 0: all."""
    approval: Approval | None = None
    lookup: Lookup | None = None
    input_artifacts: dict[str, str] = {}
    output_artifacts: tuple[str, ...] = ()
    provider: str = ""
    """For this step, instead of its role's."""
    model: str = ""
    timeout_s: float = 0.0
    """For the whole step; 0: no limit of its own."""


class Team(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A graph of steps, an entry role that delegates, or a router."""

    name: str
    mode: Literal["pipeline", "dynamic", "routed"] = "pipeline"
    word: Literal["flow", "pipeline"] = "pipeline"
    """What its texts call it: ArkFlow says `flow`, the later kinds `pipeline`."""
    description: str = ""
    inputs: tuple[InputSpec, ...] = ()
    input: dict[str, Any] = {}
    """Values that stand in the file; a run's own come first."""
    roles: tuple[Role, ...] = ()
    """In `routed` mode: the agents of the registry, and `ROUTER`, which chooses. `routed` teams have the steps `ROUTER`
    and `ROUTE`, so that the scheduler sees a graph like any other."""
    steps: tuple[Step, ...] = ()
    """`dynamic`: one step, named as the entry role."""
    entry: str = ""
    output: str = ""
    """A template; empty: the outputs of the steps that nothing depends on."""
    timeout_s: float = 0.0
    """0: none."""
    max_tokens: int = 0
    """0: no limit."""
    max_daily_tokens: int = 0
    max_depth: int = 5
    """How deep delegation may go below the entry role."""
    default_context_policy: ContextPolicy | None = None
    wraps_outputs: bool = True
    """Whether `.steps.x.output` is wrapped against prompt injection: the later kinds do, ArkFlow has raw text."""
    notify: str = ""
    """Name of a notification policy of the file or the fleet."""
    successful_runs_kept: int = 0
    """0: as long as the retention allows."""
    failed_runs_kept: int = 0
    artifact_dir: str = ""
    """Where a run without workers of its own keeps the files of its steps."""
    artifact_store: str = ""
    """`s3://…` or `gs://…`: where the files of its steps are kept, whoever runs them. Empty: as the worker has it."""
    is_foreign: bool = False
    """It came from a caller over HTTP: its tools reach the public internet alone."""

    def role(self, name: str) -> Role | None:
        """The role of that name."""
        return next((role for role in self.roles if role.name == name), None)

    def step(self, name: str) -> Step:
        """The step of that name. Raises `KeyError`."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)


class Plan(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A team, and the teams that its roles are."""

    name: str
    """Of the team that is run."""
    teams: tuple[Team, ...]

    @property
    def team(self) -> Team:
        """The one that is run."""
        return self.find(self.name)

    def find(self, name: str) -> Team:
        """A team of the plan. Raises `TeamNotFound`."""
        for team in self.teams:
            if team.name == name:
                return team
        raise TeamNotFound(f"no team {name!r} in the plan; there are {', '.join(team.name for team in self.teams)}")

    @property
    def digest(self) -> str:
        """Of its content: two plans with the same one are the same."""
        return hashlib.sha256(encode_json(self)).hexdigest()[:32]


decode_plan = msgspec.json.Decoder(Plan).decode
