"""`Settings`: everything that configures a worker, validated once."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field

from providers import AgentConfig
from providers.pricing import ModelPrice
from queue_backends import BackendOptions
from worker.audit.model import AuditLog
from worker.budgets.rules import BudgetRule
from worker.errors import BadSetting
from worker.loop_policy.model import LoopPolicy
from worker.rate_limits.rules import RateLimit
from worker.routing.route import Route
from worker.settings.approvals import ApprovalSettings
from worker.settings.artifacts import ArtifactSettings
from worker.settings.gateway import GatewaySettings
from worker.settings.masking import MASK, masked, masked_url
from worker.settings.plugins import PluginSettings
from worker.settings.table import SETTINGS
from worker.tools.config import McpServer, WebhookTool

ARK_SIGNS = ("TASK_QUEUE_URL", "AGENT_NAMESPACE")
"""Variables that only somebody who deploys this worker on purpose sets: an ark operator, or a compose file."""

_VARIABLES = frozenset(setting.variable for setting in SETTINGS)


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that configures a worker. What each field means and allows: `worker.settings.table`.

    Secrets do not appear in its `repr`.
    """

    queue_url: str = ""
    """Empty: the embedded server."""
    stream_url: str = ""
    """Empty: as `queue_url`."""
    state_url: str = ""
    """Empty: as `queue_url`."""
    queue_plugin_addr: str = ""
    """`host:port` of a kubeswarm queue plugin, which then is the queue. Empty: `queue_url` is."""
    llm_plugin_addr: str = ""
    """`host:port` of a kubeswarm LLM plugin, which then runs all tasks. Empty: each agent's own provider does."""
    backend: BackendOptions = BackendOptions()
    agent: AgentConfig = AgentConfig(model="")
    """The agent of tasks that name none. Its `model` is empty if nothing configures one."""
    agents: dict[str, AgentConfig] = {}
    """Agents by name. Each one's `name` is its key."""
    agent_descriptions: dict[str, str] = {}
    """Agent -> what it is for."""
    agent_groups: dict[str, tuple[str, ...]] = {}
    """Agent -> access groups that see it; those that are not here are everybody's."""
    audit_log: AuditLog | None = None
    """What agents do is written down so; None: not at all."""
    loop_policy: LoopPolicy | None = None
    """Of all agents that have none of their own."""
    agent_loop_policies: dict[str, LoopPolicy] = {}
    """Agent -> its own."""
    embedding_provider: str = ""
    """Of the findings that loop policies keep; empty: as the policy says."""
    embedding_model: str = ""
    """Likewise."""
    vector_store_url: str = ""
    """Where they are kept; empty: with the fleet's state."""
    plugins: PluginSettings = PluginSettings()
    """Providers and agents in other processes."""
    agent_plugins_dir: str = ""
    """Folder of agent plugins, beside those of installed distributions; empty: none."""
    gateway: GatewaySettings = GatewaySettings()
    """The fleet over HTTP."""
    allow_private_addresses: tuple[str, ...] = ()
    """Host names, addresses and networks that requests may go to although they are not public."""
    routes: dict[str, Route] = {}
    """Routes by name; live settings may add and change some."""
    concurrency: int = 100
    timeout_s: int = 120
    """For one attempt of a task."""
    max_retries: int = 3
    grace_s: float = 30.0
    retry_base_s: float = 1.0
    retry_max_s: float = 60.0
    limits: dict[str, RateLimit] = {}
    """How fast models may be called, by name; live settings may add and change some."""
    limit_wait_s: float = 5.0
    max_postponed_s: float = 86_400.0
    drop_stale: bool = False
    journal: bool = True
    processes: int = 1
    max_memory_mb: int = 0
    """0: no limit."""
    daily_token_limit: int = 0
    """0: no limit."""
    budgets: dict[str, BudgetRule] = {}
    spend_url: str = ""
    """Redis with the spend records of kubeswarm's operator; empty: the queue's, if that is Redis."""
    budget_webhook: str = ""
    """Where it is said that a budget's soft limit, or its limit, was reached; empty: nowhere."""
    usage_retention_days: int = 90
    conversation_retention_days: int = 30
    team_runs_retention_days: int = 30
    team_runs_at_once: int = 200
    """Runs of teams that one replica of the gateway drives at a time; those that wait for people do not count."""
    conversation_busy: str = "queue"
    """What becomes of a message to a conversation that is still being answered: `queue` or `refuse`."""
    mcp_servers: tuple[McpServer, ...] = ()
    webhook_tools: tuple[WebhookTool, ...] = ()
    max_stored_output_chars: int = 16_777_216
    """Of one task's tool outputs together. 0: none are stored."""
    approval: ApprovalSettings = ApprovalSettings()
    """How people are asked for their approval."""
    artifacts: ArtifactSettings = ArtifactSettings()
    """Where the files that tasks make are kept."""
    python_tools: tuple[str, ...] = ()
    """`module:name`, or the path of a file."""
    team_routes: dict[str, str] = {}
    """Role -> queue URL."""
    team_commands: bool = False
    """Whether a team's file may have MCP servers started here by a command."""
    team_mcp: bool = True
    """Whether the MCP servers of teams are connected to."""
    namespace: str = ""
    agent_name: str = ""
    team_role: str = ""
    team_name: str = ""
    validator_prompt: str = ""
    health_host: str = "0.0.0.0"  # noqa: S104 - a kubelet probes the pod's own address
    health_port: int = 8080
    log_level: str = "info"
    log_format: str = "auto"
    metrics_prefix: str = "shoal"
    prices: dict[str, ModelPrice] = {}
    """Model, or `provider/model` -> its price, for those that the list has not or has wrong."""
    sources: dict[str, str] = field(default_factory=dict)
    """Key -> where its value comes from (`AGENT_MODEL`, `shoal.yaml`, `--model`); keys with a default are absent."""

    @property
    def for_ark(self) -> bool:
        """Whether somebody deployed this process as an ark worker, and declared no agent by file or flag."""
        deployed = any(source in ARK_SIGNS for source in self.sources.values())
        declared = {self.kind_of_source(key) for key in ("agent.model", "agent.route")} & {"file", "flag"}
        return deployed and not self.agents and not declared

    def require_ark(self) -> None:
        """Demand what an ark worker must have; does nothing if this is none (see `for_ark`).

        Raises `BadSetting` with ark's text: `required env var AGENT_MODEL is not set`.
        """
        if not self.for_ark:
            return
        required = {
            "AGENT_MODEL": self.agent.model or self.agent.route,
            "AGENT_SYSTEM_PROMPT": self.agent.system_prompt,
            "TASK_QUEUE_URL": self.queue_url,
        }
        for variable, value in required.items():
            if not value:
                raise BadSetting(f"required env var {variable} is not set")

    def kind_of_source(self, key: str) -> str:
        """`default`, `variable`, `flag` or `file`: where the value of a key comes from."""
        source = self.sources.get(key, "")
        if not source:
            return "default"
        if source.startswith("--"):
            return "flag"
        return "variable" if source in _VARIABLES else "file"

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.shown().items())
        return f"Settings({shown})"

    def shown(self) -> dict[str, Any]:
        """All fields that differ from their default, as plain values without secrets."""
        default = Settings()
        return {
            name: self._shown(name)
            for name in self.__struct_fields__
            if name != "sources" and getattr(self, name) != getattr(default, name)
        }

    def _shown(self, name: str) -> Any:
        value = getattr(self, name)
        if name.endswith(("_url", "_webhook")):
            return masked_url(value)
        if name == "mcp_servers":
            return masked([_without_env(server) for server in value])
        return masked(msgspec.to_builtins(value))


def _without_env(server: McpServer) -> dict[str, Any]:
    plain: dict[str, Any] = {
        name: item for name, item in msgspec.to_builtins(server).items() if item not in ("", (), [], {})
    }
    if server.env:
        plain["env"] = dict.fromkeys(server.env, MASK)
    if server.args:
        plain["args"] = f"{len(server.args)} arguments"
    return plain
