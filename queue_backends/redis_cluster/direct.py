"""A few commands to one server of the cluster, over a connection for them alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from queue_backends.redis.locating import Address
from queue_backends.redis_cluster.url import at


async def ask(server_url: str, address: Address, *commands: Sequence[Any]) -> list[Any]:
    """Each command's reply, errors of the server's among them. Raises the driver's errors; the caller bounds the time.

    The connection is closed whatever happens, in the middle of its making too.
    """
    options = {
        "protocol": 2,
        "client_name": "shoal-asking",
        "socket_timeout": None,  # with one, the driver uses `asyncio.wait_for`, which loses cancellations before 3.12
        "retry": Retry(NoBackoff(), 0),
    }
    pool = redis.asyncio.ConnectionPool.from_url(at(server_url, address), **options)
    connection: Any = pool.make_connection()
    try:
        await connection.connect()
        replies = []
        for command in commands:
            await connection.send_command(*command)
            try:
                replies.append(await connection.read_response())
            except redis.exceptions.ResponseError as refusal:
                replies.append(refusal)
        return replies
    finally:
        await connection.disconnect(nowait=True)
