"""Labels of what is measured, health, logs and prices."""

from __future__ import annotations

from providers.pricing import ModelPrice
from worker.audit.model import AuditLog
from worker.settings.setting import Setting, text, whole

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "console", "json")
METRIC_PREFIXES = ("shoal", "arkonis", "kubeswarm")

LABELS_AND_OPERATIONS: tuple[Setting, ...] = (
    text("namespace", "AGENT_NAMESPACE", "Label in traces, metrics and budgets"),
    text("agent_name", "AGENT_NAME", "Label in traces, metrics and budgets"),
    text("team_role", "AGENT_TEAM_ROLE", "Label: the role in a team"),
    text("team_name", "AGENT_TEAM_NAME", "Label: the team"),
    text("validator_prompt", "AGENT_VALIDATOR_PROMPT", "Makes /readyz ask the model; the answer must say HEALTHY"),
    text("health_host", "SHOAL_HEALTH_HOST", "Address that /healthz, /readyz and /metrics listen on"),
    whole("health_port", "SHOAL_HEALTH_PORT", "Port of the same; 0: any free one", 0, 65535),
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
        key="audit_log",
        type=AuditLog | None,
        variable="AGENT_AUDIT_LOG",
        meaning='What agents did, one record each, in ark\'s names, such as `{"mode": "actions", "sink": "stdout"}`',
        secret=True,
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
)
