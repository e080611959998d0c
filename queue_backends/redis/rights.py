"""Whether the server's ACL allows all that the scripts do, asked before the first of them changes anything."""

from __future__ import annotations

from queue_backends.errors import BackendMisconfigured
from queue_backends.redis.client import RedisClient
from queue_backends.redis.keys import Keys


async def check_rights(client: RedisClient, keys: Keys) -> None:
    """Raise `BackendMisconfigured` that names what is forbidden."""
    names = [keys.queue, keys.results, keys.dead, keys.delayed, keys.chunks("0-0"), keys.kv("a"), keys.log("a")]
    forbidden = await client.script("rights", [keys.rights, *names], [])
    if forbidden:
        commands = ", ".join(command.decode() for command in forbidden)
        raise BackendMisconfigured(f"the server's ACL forbids commands that queue {keys.queue!r} needs: {commands}")
