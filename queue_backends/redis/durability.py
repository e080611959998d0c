"""What a server's own set-up means for the tasks that it confirms, as far as it tells."""

from __future__ import annotations

from collections.abc import Mapping

from queue_backends.capabilities import Capability


def gaps_of(facts: Mapping[str, str]) -> dict[Capability, str]:
    """Gaps of a server that says this of itself (INFO). What an ACL hides is not held against it."""
    reasons = []
    if facts.get("aof_enabled") == "0":
        reasons.append("the server keeps no append-only file, so its crash loses what is newer than its last snapshot")
    policy = facts.get("maxmemory_policy", "noeviction")
    if facts.get("maxmemory", "0") != "0" and policy != "noeviction":
        reasons.append(f"when its memory is full, the server throws away keys (maxmemory-policy {policy})")
    return {Capability.DURABLE: "; ".join(reasons)} if reasons else {}
