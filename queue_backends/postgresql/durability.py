"""What a server's own set-up means for the tasks that it confirms."""

from __future__ import annotations

from queue_backends.capabilities import Capability


def gaps_of(*, fsync: str, synchronous_commit: str) -> dict[Capability, str]:
    """Gaps of a database with these settings."""
    reasons = []
    if fsync == "off":
        reasons.append("the server does not wait for its disk (fsync is off), so a crash of the machine loses tasks")
    if synchronous_commit == "off":
        reasons.append("commits are confirmed early (synchronous_commit is off), so a crash loses the newest tasks")
    return {Capability.DURABLE: "; ".join(reasons)} if reasons else {}
