"""What happens around tool calls, beside making them."""

from __future__ import annotations

from worker.loop_policy.model import LoopPolicy
from worker.settings.setting import Setting, text

LOOP_POLICY: tuple[Setting, ...] = (
    Setting(
        key="loop_policy",
        type=LoopPolicy | None,
        variable="AGENT_LOOP_POLICY",
        meaning='Of all agents that have none of their own, in ark\'s names, such as `{"dedup": true}`',
    ),
    Setting(
        key="agent_loop_policies",
        type=dict[str, LoopPolicy],
        meaning="Agent -> its own; the same as `loop_policy` of one of `agents:`",
    ),
    text("embedding_provider", "AGENT_EMBEDDING_PROVIDER", "Makes the vectors of findings, whatever a policy says"),
    text("embedding_model", "AGENT_EMBEDDING_MODEL", "Likewise; `lexical` needs no provider and no key"),
    Setting(
        key="vector_store_url",
        type=str,
        variable="AGENT_VECTOR_STORE_URL",
        meaning="Where findings are kept, such as `qdrant://host:6333/collection`; empty: with the fleet's state",
        secret=True,
    ),
)
