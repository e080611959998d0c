"""The lifetime of a whole queue, for one that nobody will need again."""

from __future__ import annotations

from queue_backends.redis.client import RedisClient
from queue_backends.redis.keys import Keys


async def keep_for(client: RedisClient, keys: Keys, lifetime_s: float) -> None:
    """Have all keys of the queue that know no lifetime of their own disappear after this time; with 0, now."""
    names = (
        *keys.lanes,
        keys.results,
        keys.results_expiry,
        keys.dead,
        keys.delayed,
        keys.delayed_entries,
        keys.moved,
        keys.cancelled,
        keys.paused,
    )
    if lifetime_s <= 0:
        await client.command("UNLINK", *names, keys.reclaimer)
    else:
        lifetime_ms = str(round(lifetime_s * 1000))
        await client.pipeline([("PEXPIRE", name, lifetime_ms) for name in names])
