"""Where tasks, chunks and state are, and how a queue keeps what it holds."""

from __future__ import annotations

from worker.settings.setting import Setting, seconds, text, whole

QUEUE: tuple[Setting, ...] = (
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
    text(
        "queue_plugin_addr",
        "SWARM_PLUGIN_QUEUE_ADDR",
        "`host:port` of a kubeswarm queue plugin: it is the queue, chunks and state stay where they are",
    ),
    seconds("backend.lease_s", "SHOAL_LEASE_SECONDS", "How long a task stays its worker's without a renewal", 1, 3600),
    seconds("backend.result_retention_s", "SHOAL_RESULT_RETENTION_SECONDS", "How long results stay readable", 1),
    seconds(
        "backend.chunk_retention_s",
        "SHOAL_CHUNK_RETENTION_SECONDS",
        "How long a stream can be replayed after its end",
        1,
    ),
    whole("backend.chunk_limit", "SHOAL_CHUNK_LIMIT", "Chunks kept for replay, per task", 1, 10_000_000),
    whole("backend.chunk_bytes", "SHOAL_CHUNK_BYTES", "Bytes of chunks kept for replay, per task", 1, 1_073_741_824),
    seconds(
        "backend.unfinished_ttl_s",
        "SHOAL_UNFINISHED_TTL_SECONDS",
        "What belongs to a task that nobody finishes disappears this long after its last write",
        60,
    ),
    seconds(
        "backend.idempotency_retention_s",
        "SHOAL_IDEMPOTENCY_RETENTION_SECONDS",
        "How long an idempotency key is remembered",
        1,
    ),
    whole("backend.max_depth", "SHOAL_MAX_DEPTH", "Waiting tasks above which submit is refused; 0: no limit", 0),
    whole("backend.dead_limit", "SHOAL_DEAD_LIMIT", "Dead letters kept", 1),
    whole("backend.max_prompt_bytes", "SHOAL_MAX_PROMPT_BYTES", "Longest prompt that is accepted", 1, 512 * 1024**2),
    whole(
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
)
