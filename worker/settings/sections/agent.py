"""What an agent is: its model, how it is called, and what a run of it may do.

`agents:` has the same fields for each name; `worker.agents` reads them by these rules.
"""

from __future__ import annotations

from providers import ClientTool, Thinking, ToolChoice
from queue_backends.messages import JsonObject
from worker.settings.setting import Setting, number, seconds, text, whole

AGENT: tuple[Setting, ...] = (
    text("agent.model", "AGENT_MODEL", "The model; its prefix selects the provider"),
    text("agent.provider", "AGENT_PROVIDER", "The provider's name; empty: found from the model"),
    text("agent.route", "SHOAL_ROUTE", "Name of the route that its model calls take, instead of `model`"),
    text(
        "llm_plugin_addr",
        "SWARM_PLUGIN_LLM_ADDR",
        "`host:port` of a kubeswarm LLM plugin: it runs the tasks of all agents, whatever provider they name",
    ),
    text("agent.name", "", "Name in usage records and traces; empty: the agent's key, or `agent_name`"),
    text("agent.system_prompt", "AGENT_SYSTEM_PROMPT", "The system prompt"),
    Setting(
        key="agent.system_prompt_path",
        type=str,
        variable="AGENT_SYSTEM_PROMPT_PATH",
        meaning="A file that holds the system prompt; wins over the text. In the file: relative to the file",
    ),
    whole("agent.max_tokens", "AGENT_MAX_TOKENS", "Output tokens of one model call", 1, 200_000),
    number("agent.temperature", "SHOAL_TEMPERATURE", "Sampling temperature; unset: the model's own", 0, 2),
    number("agent.top_p", "SHOAL_TOP_P", "Nucleus sampling; unset: the model's own", 0, 1),
    whole(
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
    whole("agent.max_turns", "SHOAL_MAX_TURNS", "Model calls in one run", 1, 10_000),
    Setting(
        key="agent.max_run_tokens",
        type=int | None,
        variable="SHOAL_MAX_RUN_TOKENS",
        minimum=1,
        meaning="Input and output tokens of one run; unset: no limit",
    ),
    whole("agent.max_parallel_tools", "SHOAL_MAX_PARALLEL_TOOLS", "Tools of one turn that run at once", 1, 1000),
    whole(
        "agent.max_repeated_calls",
        "SHOAL_MAX_REPEATED_CALLS",
        "Answers to the same tool with the same arguments in one run",
        1,
        1000,
    ),
    whole(
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
    text("agent.base_url", "SHOAL_BASE_URL", "The provider's address, such as a local server; empty: its own"),
    text("agent.api_key_env", "SHOAL_API_KEY_ENV", "Name of the variable that holds the provider's key"),
    seconds("agent.connect_timeout_s", "SHOAL_CONNECT_TIMEOUT_SECONDS", "To connect to the provider", 0.1, 3600),
    seconds(
        "agent.first_event_timeout_s",
        "SHOAL_FIRST_EVENT_TIMEOUT_SECONDS",
        "From a request to the answer's first event",
        0.1,
        86400,
    ),
    seconds("agent.idle_timeout_s", "SHOAL_IDLE_TIMEOUT_SECONDS", "Between two events of an answer", 0.1, 86400),
    whole("agent.max_retries", "SHOAL_HTTP_RETRIES", "HTTP requests repeated before an answer began", 0, 100),
    seconds(
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
)
