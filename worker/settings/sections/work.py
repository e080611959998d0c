"""How a worker works: how much at once, for how long, how fast, for what money, and what is kept of it."""

from __future__ import annotations

from typing import Any

from queue_backends.messages import JsonObject
from worker.settings.setting import Setting, seconds, whole

CONVERSATION_BUSY = ("queue", "refuse")

WORK: tuple[Setting, ...] = (
    Setting(
        key="routes",
        type=dict[str, Any],
        variable="SHOAL_ROUTES",
        meaning='Name -> targets of model calls, such as `{"main": [{"model": "gpt-4o"}, {"model": "o4-mini"}]}`',
        secret=True,
    ),
    whole("concurrency", "AGENT_MAX_CONCURRENT_TASKS", "Tasks that run at once in one process", 1, 1000),
    whole("timeout_s", "AGENT_TIMEOUT_SECONDS", "Seconds one attempt of a task may take", 1, 86400),
    whole("max_retries", "AGENT_MAX_RETRIES", "Retries of a failed task; then it goes to the dead letters", 0, 100),
    seconds("grace_s", "SHOAL_GRACE_SECONDS", "After SIGTERM, how long running tasks may still take", 0, 86400),
    seconds("retry_base_s", "SHOAL_RETRY_BASE_SECONDS", "Wait before the first retry; it doubles each time", 0, 86400),
    seconds("retry_max_s", "SHOAL_RETRY_MAX_SECONDS", "Longest wait before a retry", 0, 86400),
    Setting(
        key="limits",
        type=dict[str, JsonObject],
        variable="SHOAL_LIMITS",
        meaning='Name -> how fast models may be called, such as `{"main": {"requests_per_min": 4000}}`',
    ),
    seconds(
        "limit_wait_s",
        "SHOAL_LIMIT_WAIT_SECONDS",
        "A model call waits so long for room in a rate limit; then its task gives the slot back and comes again",
        0,
        600,
    ),
    seconds(
        "max_postponed_s",
        "SHOAL_MAX_POSTPONED_SECONDS",
        "A task that has come again for so long, and could not make its model call, is given up",
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
    whole("processes", "SHOAL_PROCESSES", "Worker processes of one `shoal worker`", 1, 256),
    whole(
        "max_memory_mb",
        "SHOAL_MAX_MEMORY_MB",
        "Resident memory of one process, in MB, above which another takes its place and it drains; 0: no limit",
        0,
    ),
    whole(
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
        key="spend_url",
        type=str,
        variable="SPEND_STORE_URL",
        meaning="Redis with the spend records of kubeswarm's operator, for workers of its teams; empty: the queue's",
        secret=True,
    ),
    Setting(
        key="budget_webhook",
        type=str,
        variable="SHOAL_BUDGET_WEBHOOK",
        secret=True,
        meaning="URL that is told, by a POST of JSON, when a budget reaches its soft limit or its limit",
    ),
    whole(
        "usage_retention_days",
        "SHOAL_USAGE_RETENTION_DAYS",
        "How long usage records are kept at least, and totals after the last call that they count",
        1,
        3660,
    ),
    whole(
        "conversation_retention_days",
        "SHOAL_CONVERSATION_RETENTION_DAYS",
        "How long sessions and the messages of their conversations are kept at least after they were last used",
        1,
        3660,
    ),
    whole(
        "team_runs_retention_days",
        "SHOAL_TEAM_RUNS_RETENTION_DAYS",
        "How long runs of teams are kept at least after they ended",
        1,
        3660,
    ),
    whole(
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
)
