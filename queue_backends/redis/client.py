"""The connection: how it is made, checked, bounded in time, and how the driver's errors become ours."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib.resources
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from queue_backends.errors import BackendMisconfigured, BackendUnavailable, QueueError
from queue_backends.redis.keys import DEFAULT_STREAM

OLDEST_SERVER = (6, 2)
COMMAND_TIMEOUT_S = 15.0
MOST_CONNECTIONS = 32
"""Per backend. One blocks in a pull and one listens; the rest are for commands, which wait for a free one."""

_TRANSIENT = ("LOADING", "READONLY", "OOM ", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "UNBLOCKED")


@functools.cache
def _script(name: str) -> tuple[str, str]:
    """A script's text, with the shared prelude in front, and its SHA-1."""
    folder = importlib.resources.files("queue_backends.redis.scripts")
    text = folder.joinpath("prelude.lua").read_text() + folder.joinpath(f"{name}.lua").read_text()
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def split_url(url: str) -> tuple[str, str]:
    """A URL without its `stream` parameter, and that parameter's value: ark's way to name a queue."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    stream = next((value for key, value in query if key == "stream" and value), DEFAULT_STREAM)
    rest = urlencode([(key, value) for key, value in query if key != "stream"])
    return urlunsplit(parts._replace(query=rest)), stream


def masked(url: str) -> str:
    """A URL that can be shown: without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")))


def translated(error: Exception) -> QueueError:
    """What a driver's error means to the caller."""
    text = str(error) or type(error).__name__
    if isinstance(error, redis.exceptions.AuthorizationError | redis.exceptions.AuthenticationError):
        return BackendMisconfigured(f"the server refuses these credentials: {text}")
    if isinstance(error, redis.exceptions.NoPermissionError):
        return BackendMisconfigured(f"the server's ACL forbids a command we need: {text}")
    if isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError | TimeoutError | OSError):
        return BackendUnavailable(f"the queue's server cannot be reached: {text}")
    if isinstance(error, redis.exceptions.ReadOnlyError | redis.exceptions.OutOfMemoryError) or any(
        word in text for word in _TRANSIENT
    ):
        return BackendUnavailable(f"the queue's server cannot work right now: {text}")
    return QueueError(f"the queue's server refused a command: {text}")


@asynccontextmanager
async def translating(timeout_s: float = COMMAND_TIMEOUT_S) -> AsyncIterator[None]:
    """Bound what happens inside to `timeout_s`, and raise only our own errors."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (redis.exceptions.RedisError, OSError) as error:  # asyncio's TimeoutError is an OSError
        raise translated(error) from error


class RedisClient:
    """One server, as the rest of this package uses it: commands and scripts, bounded and translated."""

    def __init__(self, url: str) -> None:
        self.url, self.stream = split_url(url)
        # A repeated command could repeat its effect: whether to try again is for callers who know what they did.
        # Waits are bounded by `translating`; the driver's own socket time-out costs microseconds per reply.
        tcp_only: dict[str, Any] = {} if self.url.startswith("unix:") else {"socket_keepalive": True}
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            self.url,
            max_connections=MOST_CONNECTIONS,
            timeout=COMMAND_TIMEOUT_S,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=5,
            retry=Retry(NoBackoff(), 0),
            client_name="shoal",
            **tcp_only,
        )
        self.redis = redis.asyncio.Redis.from_pool(pool)
        # Replies as they come: the driver's reshaping differs between its versions, and costs time per reply.
        self.redis.response_callbacks.clear()

    async def command(self, *args: Any, timeout_s: float = COMMAND_TIMEOUT_S) -> Any:
        """One command's reply."""
        async with translating(timeout_s):
            return await self.redis.execute_command(*args)

    async def pipeline(
        self,
        commands: Sequence[Sequence[Any]],
        *,
        transaction: bool = False,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> list[Any]:
        """The replies of several commands, in one round trip. An error of any is raised."""
        async with translating(timeout_s), self.redis.pipeline(transaction=transaction) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute()

    async def script(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """A script's reply; the server is given its text if it does not have it."""
        text, sha = _script(name)
        async with translating():
            try:
                return await self.redis.execute_command("EVALSHA", sha, len(keys), *keys, *args)
            except redis.exceptions.NoScriptError:
                return await self.redis.execute_command("EVAL", text, len(keys), *keys, *args)

    async def check(self) -> None:
        """Raise unless the server answers and is new enough."""
        try:
            info = await self.command("INFO", "server")
        except BackendMisconfigured:  # an ACL may hide INFO and allow all that we need
            await self.command("PING")
            return
        except QueueError as error:
            raise type(error)(f"{error} ({masked(self.url)})") from error
        version = dict(line.split(":", 1) for line in info.decode().split() if ":" in line).get("redis_version", "")
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if numbers < OLDEST_SERVER:
            raise BackendMisconfigured(f"the server at {masked(self.url)} is Redis {version}: 6.2 or newer is needed")

    async def close(self) -> None:
        """Close all connections."""
        await self.redis.aclose()
