"""Every setting there is, as data: its key, its environment variable, what it may be and what it means.

The loader, `docs/configuration.md` and `shoal doctor` all read this table, so none of them can drift from the others. A
`key` is the path of a field in `Settings` (`agent.max_tokens`), which is its place in `shoal.yaml` too. Defaults are
those of the Structs. Names, bounds and error texts of the `AGENT_*` variables, `TASK_QUEUE_URL`, `STREAM_CHANNEL_URL`
and `POD_NAME` are ark's.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from providers import ClientTool, Thinking, ToolChoice
from providers.pricing import ModelPrice
from queue_backends.messages import JsonObject
from worker.settings.gateway import AUTH_MODES
from worker.settings.plugins import ExternalPlugin
from worker.tools.config import McpServer, WebhookTool

MAX_SECONDS = 366 * 24 * 3600
LOG_LEVELS = ("debug", "info", "warning", "error")
METRIC_PREFIXES = ("shoal", "arkonis", "kubeswarm")
LOG_FORMATS = ("auto", "console", "json")
CONVERSATION_BUSY = ("queue", "refuse")
APPROVAL_FALLBACKS = ("reject", "approve")


class Setting(Struct, frozen=True, kw_only=True):
    """One setting. `minimum` and `maximum` are inclusive; `choices` are all allowed values, any letter case."""

    key: str
    type: Any
    meaning: str
    variable: str = ""
    """Its environment variable; empty: only in `shoal.yaml` and by flag."""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False
    """May hold a password: shown masked everywhere."""

    @property
    def allowed(self) -> str:
        """What it may be, in words: for error messages and the documentation."""
        if self.choices:
            return " | ".join(self.choices)
        if self.maximum is not None:
            return f"{_plain(self.minimum or 0)} to {_plain(self.maximum)}"
        if self.minimum is not None:
            return f"{_plain(self.minimum)} or more"
        return _ALLOWED.get(self.type, "JSON in a variable, plain YAML in the file")


def _plain(number: float) -> str:
    return f"{number:g}" if number != int(number) else str(int(number))


_ALLOWED: dict[Any, str] = {
    str: "text",
    bool: "1, true, yes, on, or 0, false, no, off",
    tuple[str, ...]: "comma-separated in a variable, a list in the file",
}


def _queue() -> list[Setting]:
    return [
        Setting(
            key="queue_url",
            type=str,
            variable="TASK_QUEUE_URL",
            secret=True,
            meaning="Where tasks are: `redis://…?stream=name`, `host:port`, `memory://`; empty: the embedded server",
        ),
        Setting(
            key="stream_url",
            type=str,
            variable="STREAM_CHANNEL_URL",
            secret=True,
            meaning="Where chunks go; empty: with the queue",
        ),
        Setting(
            key="state_url",
            type=str,
            variable="SHOAL_STATE_URL",
            secret=True,
            meaning="Where usage and budgets are kept; empty: with the queue",
        ),
        _text(
            "queue_plugin_addr",
            "SWARM_PLUGIN_QUEUE_ADDR",
            "`host:port` of a kubeswarm queue plugin: it is the queue, chunks and state stay where they are",
        ),
        _seconds(
            "backend.lease_s", "SHOAL_LEASE_SECONDS", "How long a task stays its worker's without a renewal", 1, 3600
        ),
        _seconds("backend.result_retention_s", "SHOAL_RESULT_RETENTION_SECONDS", "How long results stay readable", 1),
        _seconds(
            "backend.chunk_retention_s",
            "SHOAL_CHUNK_RETENTION_SECONDS",
            "How long a stream can be replayed after its end",
            1,
        ),
        _whole("backend.chunk_limit", "SHOAL_CHUNK_LIMIT", "Chunks kept for replay, per task", 1, 10_000_000),
        _whole(
            "backend.chunk_bytes", "SHOAL_CHUNK_BYTES", "Bytes of chunks kept for replay, per task", 1, 1_073_741_824
        ),
        _seconds(
            "backend.unfinished_ttl_s",
            "SHOAL_UNFINISHED_TTL_SECONDS",
            "What belongs to a task that nobody finishes disappears this long after its last write",
            60,
        ),
        _seconds(
            "backend.idempotency_retention_s",
            "SHOAL_IDEMPOTENCY_RETENTION_SECONDS",
            "How long an idempotency key is remembered",
            1,
        ),
        _whole("backend.max_depth", "SHOAL_MAX_DEPTH", "Waiting tasks above which submit is refused; 0: no limit", 0),
        _whole("backend.dead_limit", "SHOAL_DEAD_LIMIT", "Dead letters kept", 1),
        _whole(
            "backend.max_prompt_bytes", "SHOAL_MAX_PROMPT_BYTES", "Longest prompt that is accepted", 1, 512 * 1024**2
        ),
        _whole(
            "backend.max_deliveries",
            "SHOAL_MAX_DELIVERIES",
            "Deliveries that may end in a crash before a task counts as poison",
            1,
            1000,
        ),
        Setting(
            key="backend.consumer",
            type=str,
            variable="POD_NAME",
            meaning="This process' name among the workers; a unique suffix is added; empty: the host name",
        ),
    ]


def _agent() -> list[Setting]:
    return [
        _text("agent.model", "AGENT_MODEL", "The model; its prefix selects the provider"),
        _text("agent.provider", "AGENT_PROVIDER", "The provider's name; empty: found from the model"),
        _text("agent.route", "SHOAL_ROUTE", "Name of the route that its model calls take, instead of `model`"),
        _text(
            "llm_plugin_addr",
            "SWARM_PLUGIN_LLM_ADDR",
            "`host:port` of a kubeswarm LLM plugin: it runs the tasks of all agents, whatever provider they name",
        ),
        _text("agent.name", "", "Name in usage records and traces; empty: the agent's key, or `agent_name`"),
        _text("agent.system_prompt", "AGENT_SYSTEM_PROMPT", "The system prompt"),
        Setting(
            key="agent.system_prompt_path",
            type=str,
            variable="AGENT_SYSTEM_PROMPT_PATH",
            meaning="A file that holds the system prompt; wins over the text. In the file: relative to the file",
        ),
        _whole("agent.max_tokens", "AGENT_MAX_TOKENS", "Output tokens of one model call", 1, 200_000),
        _number("agent.temperature", "SHOAL_TEMPERATURE", "Sampling temperature; unset: the model's own", 0, 2),
        _number("agent.top_p", "SHOAL_TOP_P", "Nucleus sampling; unset: the model's own", 0, 1),
        _whole(
            "agent.max_answer_chars",
            "SHOAL_MAX_ANSWER_CHARS",
            "Characters of one model call's answer, reasoning and tool arguments included; more ends the run",
            1,
            1_073_741_824,
        ),
        Setting(key="agent.stop", type=tuple[str, ...], variable="SHOAL_STOP", meaning="Texts that end an answer"),
        Setting(
            key="agent.tools",
            type=tuple[str, ...],
            variable="SHOAL_TOOLS",
            meaning="Names or patterns (`search__*`) of the tools that the agent may call",
        ),
        Setting(
            key="agent.approve_tools",
            type=tuple[str, ...],
            variable="SHOAL_APPROVE_TOOLS",
            meaning="Names or patterns of the tools whose calls a person has to approve",
        ),
        Setting(
            key="agent.tool_choice",
            type=ToolChoice,
            meaning="Whether the model may, must or must not call a tool",
            choices=tuple(choice.value for choice in ToolChoice),
        ),
        Setting(
            key="agent.thinking",
            type=Thinking | None,
            variable="SHOAL_THINKING",
            meaning='How much the model reasons, such as `{"budget_tokens": 2048}` or `{"effort": "high"}`',
        ),
        _whole("agent.max_turns", "SHOAL_MAX_TURNS", "Model calls in one run", 1, 10_000),
        Setting(
            key="agent.max_run_tokens",
            type=int | None,
            variable="SHOAL_MAX_RUN_TOKENS",
            minimum=1,
            meaning="Input and output tokens of one run; unset: no limit",
        ),
        _whole("agent.max_parallel_tools", "SHOAL_MAX_PARALLEL_TOOLS", "Tools of one turn that run at once", 1, 1000),
        _whole(
            "agent.max_repeated_calls",
            "SHOAL_MAX_REPEATED_CALLS",
            "Answers to the same tool with the same arguments in one run",
            1,
            1000,
        ),
        _whole(
            "agent.max_turn_restarts",
            "SHOAL_MAX_TURN_RESTARTS",
            "How often a turn is started over after its stream broke",
            0,
            100,
        ),
        Setting(key="agent.output_schema", type=JsonObject | None, meaning="JSON Schema that the answer has to fit"),
        Setting(
            key="agent.client_tools",
            type=tuple[ClientTool, ...],
            meaning="Tools that a task's client runs itself: a call of one ends the run; mostly tasks bring them along",
        ),
        _text("agent.base_url", "SHOAL_BASE_URL", "The provider's address, such as a local server; empty: its own"),
        _text("agent.api_key_env", "SHOAL_API_KEY_ENV", "Name of the variable that holds the provider's key"),
        _seconds("agent.connect_timeout_s", "SHOAL_CONNECT_TIMEOUT_SECONDS", "To connect to the provider", 0.1, 3600),
        _seconds(
            "agent.first_event_timeout_s",
            "SHOAL_FIRST_EVENT_TIMEOUT_SECONDS",
            "From a request to the answer's first event",
            0.1,
            86400,
        ),
        _seconds("agent.idle_timeout_s", "SHOAL_IDLE_TIMEOUT_SECONDS", "Between two events of an answer", 0.1, 86400),
        _whole("agent.max_retries", "SHOAL_HTTP_RETRIES", "HTTP requests repeated before an answer began", 0, 100),
        _seconds(
            "agent.max_retry_wait_s",
            "SHOAL_HTTP_RETRY_WAIT_SECONDS",
            "A provider that wants a longer wait before a request is repeated is not waited for",
            0,
            3600,
        ),
        Setting(
            key="agent.options",
            type=JsonObject,
            variable="SHOAL_PROVIDER_OPTIONS",
            meaning="Settings that only this provider knows",
            secret=True,
        ),
        Setting(
            key="agent_descriptions",
            type=dict[str, str],
            meaning="Agent -> what it is for; the same as `description` of one of `agents:`",
        ),
        Setting(
            key="agent_groups",
            type=dict[str, tuple[str, ...]],
            variable="SHOAL_AGENT_GROUPS",
            meaning='Agent -> who sees it at the gateway, such as `{"default": ["staff"]}`; as `groups` in `agents:`',
        ),
    ]


def _work() -> list[Setting]:
    return [
        Setting(
            key="routes",
            type=dict[str, Any],
            variable="SHOAL_ROUTES",
            meaning='Name -> targets of model calls, such as `{"main": [{"model": "gpt-4o"}, {"model": "o4-mini"}]}`',
            secret=True,
        ),
        _whole("concurrency", "AGENT_MAX_CONCURRENT_TASKS", "Tasks that run at once in one process", 1, 1000),
        _whole("timeout_s", "AGENT_TIMEOUT_SECONDS", "Seconds one attempt of a task may take", 1, 86400),
        _whole(
            "max_retries", "AGENT_MAX_RETRIES", "Retries of a failed task; then it goes to the dead letters", 0, 100
        ),
        _seconds("grace_s", "SHOAL_GRACE_SECONDS", "After SIGTERM, how long running tasks may still take", 0, 86400),
        _seconds(
            "retry_base_s", "SHOAL_RETRY_BASE_SECONDS", "Wait before the first retry; it doubles each time", 0, 86400
        ),
        _seconds("retry_max_s", "SHOAL_RETRY_MAX_SECONDS", "Longest wait before a retry", 0, 86400),
        Setting(
            key="limits",
            type=dict[str, JsonObject],
            variable="SHOAL_LIMITS",
            meaning='Name -> how fast models may be called, such as `{"main": {"requests_per_min": 4000}}`',
        ),
        _seconds(
            "limit_wait_s",
            "SHOAL_LIMIT_WAIT_SECONDS",
            "A model call waits so long for room in a rate limit; then its task gives the slot back and comes again",
            0,
            600,
        ),
        _seconds(
            "max_postponed_s",
            "SHOAL_MAX_POSTPONED_SECONDS",
            "A task that has come again for so long, and found no room for its model call, is given up",
            1,
        ),
        Setting(
            key="drop_stale",
            type=bool,
            variable="SHOAL_DROP_STALE",
            meaning="ark's rule: a task that waited longer than its time limit fails instead of being run",
        ),
        Setting(
            key="journal",
            type=bool,
            variable="SHOAL_JOURNAL",
            meaning="Keep a journal of each run; without it, a task whose worker dies repeats paid calls and tools",
        ),
        _whole("processes", "SHOAL_PROCESSES", "Worker processes of one `shoal worker`", 1, 256),
        _whole(
            "max_memory_mb",
            "SHOAL_MAX_MEMORY_MB",
            "Resident memory of one process, in MB, above which another takes its place and it drains; 0: no limit",
            0,
        ),
        _whole(
            "daily_token_limit",
            "AGENT_DAILY_TOKEN_LIMIT",
            "Tokens this agent may use in 24 hours; 0: no limit. Needs `namespace` and `agent_name`",
            0,
        ),
        Setting(
            key="budgets",
            type=dict[str, JsonObject],
            variable="SHOAL_BUDGETS",
            meaning='Name -> what may be spent, such as `{"acme": {"scope": "tenant", "period": "month", "usd": 100}}`',
        ),
        Setting(
            key="budget_webhook",
            type=str,
            variable="SHOAL_BUDGET_WEBHOOK",
            secret=True,
            meaning="URL that is told, by a POST of JSON, when a budget reaches its soft limit or its limit",
        ),
        _whole(
            "usage_retention_days",
            "SHOAL_USAGE_RETENTION_DAYS",
            "How long usage records are kept at least, and totals after the last call that they count",
            1,
            3660,
        ),
        _whole(
            "conversation_retention_days",
            "SHOAL_CONVERSATION_RETENTION_DAYS",
            "How long sessions and the messages of their conversations are kept at least after they were last used",
            1,
            3660,
        ),
        _whole(
            "team_runs_retention_days",
            "SHOAL_TEAM_RUNS_RETENTION_DAYS",
            "How long runs of teams are kept at least after they ended",
            1,
            3660,
        ),
        _whole(
            "team_runs_at_once",
            "SHOAL_TEAM_RUNS_AT_ONCE",
            "Runs of teams that one `shoal serve` drives at a time; those that wait for people do not count",
            1,
            100_000,
        ),
        Setting(
            key="conversation_busy",
            type=str,
            variable="SHOAL_CONVERSATION_BUSY",
            choices=CONVERSATION_BUSY,
            meaning="What becomes of a message to a conversation that is still being answered: `queue` (it is next) or "
            "`refuse` (409)",
        ),
    ]


def _tools() -> list[Setting]:
    return [
        Setting(
            key="mcp_servers",
            type=tuple[McpServer, ...],
            variable="AGENT_MCP_SERVERS",
            meaning="MCP servers whose tools the agents get",
            secret=True,
        ),
        Setting(
            key="webhook_tools",
            type=tuple[WebhookTool, ...],
            variable="AGENT_WEBHOOK_TOOLS",
            meaning="Tools that are an HTTP request",
            secret=True,
        ),
        Setting(
            key="python_tools",
            type=tuple[str, ...],
            variable="SHOAL_PYTHON_TOOLS",
            meaning="Tools that are Python functions: `module:name`, or the path of a file",
        ),
        _whole(
            "max_stored_output_chars",
            "SHOAL_MAX_STORED_OUTPUT_CHARS",
            "Characters of tool outputs too long to be shown that are stored, per task; 0: none, they are only cut",
            0,
            1_073_741_824,
        ),
        Setting(
            key="team_routes",
            type=dict[str, str],
            variable="AGENT_TEAM_ROUTES",
            meaning="Role -> queue URL: whom the agent may delegate to",
            secret=True,
        ),
        Setting(
            key="team_commands",
            type=bool,
            variable="SHOAL_TEAM_COMMANDS",
            meaning="MCP servers of teams may be programs that workers start; otherwise only those with a URL are used",
        ),
        Setting(
            key="team_mcp",
            type=bool,
            variable="SHOAL_TEAM_MCP",
            meaning="Connect to the MCP servers that teams declare; without it, their roles do without those tools",
        ),
    ]


def _plugins() -> list[Setting]:
    return [
        _text("plugins.grpc_addr", "SHOAL_GRPC_ADDR", "Where `shoal serve` takes in plugins: `host:port`"),
        Setting(
            key="plugins.on_worker",
            type=bool,
            variable="SHOAL_PLUGINS_ON_WORKER",
            meaning="Every worker takes in plugins, too, at the same address",
        ),
        _text(
            "plugins.dir", "SHOAL_PLUGINS_DIR", "Folder of folders with executables: plugins to run beside the engine"
        ),
        Setting(
            key="plugins.external",
            type=tuple[ExternalPlugin, ...],
            variable="SHOAL_PLUGINS_EXTERNAL",
            meaning='Plugins that do not register themselves, such as `[{"name": "my_llm", "addr": "host:50051"}]`',
        ),
        _text("agent_plugins_dir", "SHOAL_AGENT_PLUGINS_DIR", "Folder of folders with a manifest each: agent plugins"),
        _text("plugins.health_check_interval", "SHOAL_PLUGINS_HEALTH_CHECK_INTERVAL", "Between two checks of a plugin"),
        _text(
            "plugins.heartbeat_interval", "SHOAL_PLUGINS_HEARTBEAT_INTERVAL", "Three of them missed: it is taken off"
        ),
        _text("plugins.tenant", "SHOAL_PLUGINS_TENANT", "The only tenant whose plugins are taken in; empty: any"),
        Setting(
            key="plugins.shadow",
            type=tuple[str, ...],
            variable="SHOAL_PLUGINS_SHADOW",
            meaning="Names of built-in providers that mean a remote one instead",
        ),
        _text("plugins.token_env", "", "Name of the variable with the secret that plugins have to know, if it is set"),
        _text("plugins.tls_cert", "SHOAL_PLUGINS_TLS_CERT", "Certificate (PEM) of the address for plugins"),
        _text("plugins.tls_key", "SHOAL_PLUGINS_TLS_KEY", "Its key"),
        _text("plugins.tls_ca", "SHOAL_PLUGINS_TLS_CA", "Certificates that plugins behind TLS are checked against"),
    ]


def _gateway() -> list[Setting]:
    return [
        _text(
            "gateway.host", "SHOAL_HTTP_HOST", "Address of the HTTP API and pages; others than this machine need keys"
        ),
        _whole("gateway.port", "SHOAL_HTTP_PORT", "Its port; 0: any free one", 0, 65_535),
        Setting(
            key="gateway.auth",
            type=str,
            variable="SHOAL_AUTH",
            choices=AUTH_MODES,
            meaning="`auto`: once there is a key, or OIDC is set, every request needs one; `off`: loopback only",
        ),
        _texts(
            "gateway.allowed_hosts", "SHOAL_ALLOWED_HOSTS", "Host names that requests may name; empty: see gateway.md"
        ),
        _texts(
            "gateway.trusted_proxies",
            "SHOAL_TRUSTED_PROXIES",
            "Addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed",
        ),
        _texts("gateway.cors_origins", "SHOAL_CORS_ORIGINS", "Origins whose pages may call the API; empty: none"),
        _text("gateway.tls_cert", "SHOAL_TLS_CERT", "Certificate (PEM) of the HTTP API"),
        _text("gateway.tls_key", "SHOAL_TLS_KEY", "Its key"),
        _text(
            "gateway.oidc_issuer",
            "SHOAL_OIDC_ISSUER",
            "Issuer whose tokens are taken, such as `https://id.example.com`",
        ),
        _texts("gateway.oidc_audience", "SHOAL_OIDC_AUDIENCE", "Audiences that a token must have one of"),
        _text(
            "gateway.oidc_jwks_url", "SHOAL_OIDC_JWKS_URL", "Where the issuer's keys are; empty: as its discovery says"
        ),
        _texts("gateway.oidc_algorithms", "SHOAL_OIDC_ALGORITHMS", "Signatures that are taken"),
        _seconds("gateway.oidc_leeway_s", "SHOAL_OIDC_LEEWAY_SECONDS", "How far clocks may differ", 0, 300),
        _text("gateway.oidc_name_claim", "SHOAL_OIDC_NAME_CLAIM", "Claim with the caller's name"),
        _text("gateway.oidc_groups_claim", "SHOAL_OIDC_GROUPS_CLAIM", "Claim with the caller's groups; dots go deeper"),
        _text(
            "gateway.oidc_tenant_claim",
            "SHOAL_OIDC_TENANT_CLAIM",
            "Claim with the caller's tenant; then it must be there",
        ),
        _text("gateway.oidc_scope_claim", "SHOAL_OIDC_SCOPE_CLAIM", "Claim with scopes: text with blanks, or a list"),
        Setting(
            key="gateway.oidc_scopes",
            type=dict[str, tuple[str, ...]],
            variable="SHOAL_OIDC_SCOPES",
            meaning='Claimed scope or group -> scopes here, such as `{"ops": ["ops.read", "ops.write"]}`',
        ),
        _texts("gateway.oidc_default_scopes", "SHOAL_OIDC_DEFAULT_SCOPES", "Scopes that every token has"),
        _whole("gateway.requests_per_minute", "SHOAL_REQUESTS_PER_MINUTE", "Of one caller; 0: no limit", 0),
        _whole("gateway.burst", "SHOAL_REQUEST_BURST", "Requests that a caller may make at once", 1),
        _whole("gateway.max_streams", "SHOAL_MAX_STREAMS", "Open event streams of this process", 1),
        _whole("gateway.max_streams_per_key", "SHOAL_MAX_STREAMS_PER_KEY", "Open event streams of one caller", 1),
        _whole("gateway.max_body_bytes", "SHOAL_MAX_BODY_BYTES", "Longest request that is read", 1024, 512 * 1024**2),
        _seconds("gateway.body_timeout_s", "SHOAL_BODY_TIMEOUT_SECONDS", "For sending a request's body", 1, 3600),
        _seconds("gateway.keep_alive_s", "SHOAL_KEEP_ALIVE_SECONDS", "How long an idle connection is kept", 1, 3600),
        _seconds(
            "gateway.heartbeat_s", "SHOAL_HEARTBEAT_SECONDS", "Between two signs of life on a silent stream", 1, 300
        ),
        _seconds(
            "gateway.start_timeout_s",
            "SHOAL_START_TIMEOUT_SECONDS",
            "So long a client of the APIs of OpenAI and Anthropic waits for a worker to take its task; 0: no limit",
            0,
            86400,
        ),
        _texts(
            "allow_private_addresses",
            "SHOAL_ALLOW_PRIVATE_ADDRESSES",
            "Hosts, addresses or networks that callbacks and fetches may go to although they are private; or `all`",
        ),
        _seconds("gateway.grace_s", "SHOAL_HTTP_GRACE_SECONDS", "For running requests after SIGTERM", 0, 3600),
    ]


def _labels_and_operations() -> list[Setting]:
    return [
        _text("namespace", "AGENT_NAMESPACE", "Label in traces, metrics and budgets"),
        _text("agent_name", "AGENT_NAME", "Label in traces, metrics and budgets"),
        _text("team_role", "AGENT_TEAM_ROLE", "Label: the role in a team"),
        _text("team_name", "AGENT_TEAM_NAME", "Label: the team"),
        _text("validator_prompt", "AGENT_VALIDATOR_PROMPT", "Makes /readyz ask the model; the answer must say HEALTHY"),
        _text("health_host", "SHOAL_HEALTH_HOST", "Address that /healthz, /readyz and /metrics listen on"),
        _whole("health_port", "SHOAL_HEALTH_PORT", "Port of the same; 0: any free one", 0, 65535),
        Setting(
            key="log_level",
            type=str,
            variable="SHOAL_LOG_LEVEL",
            choices=LOG_LEVELS,
            meaning="Least level that is logged",
        ),
        Setting(
            key="log_format",
            type=str,
            variable="SHOAL_LOG_FORMAT",
            choices=LOG_FORMATS,
            meaning="How log lines look; `auto`: `console` on a terminal, else `json`",
        ),
        Setting(
            key="metrics_prefix",
            type=str,
            variable="SHOAL_METRICS_PREFIX",
            choices=METRIC_PREFIXES,
            meaning="First part of every metric's name; `arkonis` and `kubeswarm` suit dashboards made for ark",
        ),
        Setting(
            key="prices",
            type=dict[str, ModelPrice],
            variable="SHOAL_PRICES",
            meaning='Model -> USD per million tokens, such as `{"my-model": {"input_usd": 0.5, "output_usd": 1.5}}`',
        ),
    ]


def _text(key: str, variable: str, meaning: str) -> Setting:
    return Setting(key=key, type=str, variable=variable, meaning=meaning)


def _texts(key: str, variable: str, meaning: str) -> Setting:
    return Setting(key=key, type=tuple[str, ...], variable=variable, meaning=meaning)


def _whole(key: str, variable: str, meaning: str, minimum: int, maximum: int | None = None) -> Setting:
    return Setting(key=key, type=int, variable=variable, meaning=meaning, minimum=minimum, maximum=maximum)


def _number(key: str, variable: str, meaning: str, minimum: float, maximum: float) -> Setting:
    return Setting(key=key, type=float | None, variable=variable, meaning=meaning, minimum=minimum, maximum=maximum)


def _approvals() -> list[Setting]:
    return [
        _seconds(
            "approval.timeout_s",
            "SHOAL_APPROVAL_TIMEOUT_SECONDS",
            "So long people are waited for; then the fallback decides",
            1,
            6 * 24 * 3600,
        ),
        Setting(
            key="approval.fallback",
            type=str,
            variable="SHOAL_APPROVAL_FALLBACK",
            choices=APPROVAL_FALLBACKS,
            meaning="What counts if nobody answers in time",
        ),
        Setting(
            key="approval.webhook",
            type=str,
            variable="SHOAL_APPROVAL_WEBHOOK",
            secret=True,
            meaning="URL that is told of each question; empty: none",
        ),
        Setting(
            key="approval.webhook_secret",
            type=str,
            variable="SHOAL_APPROVAL_WEBHOOK_SECRET",
            secret=True,
            meaning="Signs what is sent there (Standard Webhooks): `whsec_` and base64 of 24 to 64 bytes",
        ),
    ]


def _seconds(key: str, variable: str, meaning: str, minimum: float, maximum: float = MAX_SECONDS) -> Setting:
    return Setting(key=key, type=float, variable=variable, meaning=meaning, minimum=minimum, maximum=maximum)


SECTIONS: dict[str, tuple[Setting, ...]] = {
    "Queue": tuple(_queue()),
    "Agent": tuple(_agent()),
    "Work": tuple(_work()),
    "Tools": tuple(_tools()),
    "Approvals": tuple(_approvals()),
    "Plugins": tuple(_plugins()),
    "Gateway": tuple(_gateway()),
    "Labels and operations": tuple(_labels_and_operations()),
}
SETTINGS: tuple[Setting, ...] = tuple(setting for section in SECTIONS.values() for setting in section)
"""All settings but `agents`, which is a mapping of names to what `agent` has."""

BY_KEY = {setting.key: setting for setting in SETTINGS}
