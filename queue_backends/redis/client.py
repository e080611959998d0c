"""The connection: how it is made, checked, bounded in time, and how the driver's errors become ours."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import hiredis
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from queue_backends.availability import Availability
from queue_backends.errors import BackendMisconfigured, BackendUnavailable, QueueError
from queue_backends.redis.guard import Guard
from queue_backends.redis.keys import DEFAULT_STREAM
from queue_backends.redis.line import Line, Link, Receiver
from queue_backends.redis.locating import LocatedConnection, LocatedSSLConnection, Locator
from queue_backends.redis.redirecting import redirection
from queue_backends.redis.script_text import script_text
from queue_backends.redis.to_its_end import HEARD_OUT_WITHIN_S

OLDEST_SERVER = (6, 2)
COMMAND_TIMEOUT_S = 10.0
SHORTEST_SILENCE_S = 0.5
"""Somebody who pulls hears from the server more often."""
SMALLEST_LONGEST_ARGUMENT = 1_048_576
"""No server can be told to refuse an argument of this length."""
_UNBLOCK_WITHIN_S = 1.0
MOST_CONNECTIONS = 32
"""Per backend. One blocks in a pull and one listens; the rest are for commands, which wait for a free one."""

_NOT_THE_DRIVERS = {"stream", "protocol", "decode_responses"}
"""Parameters of a URL."""
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds without traffic, seconds between probes, probes: a peer that has vanished is known after half a minute."""

# An error code stands first, or inside the text of a script ("…: -READONLY You …") or a pipeline ("…: ('BUSY …").
_PASSING = re.compile(
    r"(?:^|: -?|: \(')(?:LOADING|READONLY|OOM|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|MISCONF|UNBLOCKED) "
    r"|Script killed by user"
)
_DEMOTED = re.compile(r"(?:^|: -?|: \(')(?:READONLY|UNBLOCKED) ")
_FORBIDDEN_IN_SCRIPT = re.compile(r"ACL failure in script|The user executing the script")


def split_url(url: str) -> tuple[str, str]:
    """A URL without its `stream` parameter, and that parameter's value: ark's way to name a queue. How replies are read
    is no choice of the URL's either: what the driver would take from it goes, too."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    stream = next((value for key, value in query if key == "stream" and value), DEFAULT_STREAM)
    rest = urlencode([(key, value) for key, value in query if key not in _NOT_THE_DRIVERS])
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
    if is_about_credentials(error):
        return BackendMisconfigured(f"the server refuses these credentials: {text}")
    if isinstance(error, redis.exceptions.NoPermissionError) or _FORBIDDEN_IN_SCRIPT.search(text):
        return BackendMisconfigured(f"the server's ACL forbids a command we need: {text}")
    if (elsewhere := redirection(error)) is not None and elsewhere.is_moved:
        return BackendMisconfigured(
            "the server is one of a cluster: write redis+cluster:// or rediss+cluster:// instead"
        )
    if is_refusal(error):
        return BackendUnavailable(f"the queue's server cannot work right now: {text}")
    if isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError | TimeoutError | OSError):
        return BackendUnavailable(f"the queue's server cannot be reached: {text}")
    return QueueError(f"the queue's server refused a command: {text}")


def is_about_credentials(error: Exception) -> bool:
    """NOAUTH, WRONGPASS, or none configured."""
    return isinstance(error, redis.exceptions.AuthorizationError | redis.exceptions.AuthenticationError)


def is_refusal(error: BaseException | None) -> bool:
    """Whether the server has answered that it does nothing of this kind at present."""
    if isinstance(error, _REFUSALS):
        return True
    return isinstance(error, redis.exceptions.ResponseError) and _PASSING.search(str(error)) is not None


_REFUSALS = (
    redis.exceptions.BusyLoadingError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ClusterDownError,  # MASTERDOWN is one of them
    redis.exceptions.TryAgainError,
)


def may_have_arrived(error: BackendUnavailable) -> bool:
    """Whether the command may have been carried out all the same: it was sent, and nothing came back."""
    cause = error.__cause__
    return not is_refusal(cause) and "connecting to" not in str(cause)


def _is_no_fit_server(error: Exception) -> bool:
    """Whether the connections lead to the wrong place, or nowhere: a master that was demoted, a peer that is silent."""
    if isinstance(error, redis.exceptions.ReadOnlyError | redis.exceptions.ClusterDownError):
        return True
    if isinstance(error, redis.exceptions.TimeoutError | TimeoutError):
        return True
    return isinstance(error, redis.exceptions.ResponseError) and _DEMOTED.search(str(error)) is not None


class Pool(redis.asyncio.BlockingConnectionPool):
    """Connections that can all be distrusted at once: each is then made anew before it is used again."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._generation = 0
        self._generations: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def locate_by(self, locator: Locator) -> None:
        """Make connections to wherever the locator says."""
        is_tls = issubclass(self.connection_class, redis.asyncio.SSLConnection)
        self.connection_class = LocatedSSLConnection if is_tls else LocatedConnection
        self.connection_kwargs["locator"] = locator

    def distrust(self) -> None:
        """Use none of the present connections again."""
        self._generation += 1

    async def ensure_connection(self, connection: Any) -> None:
        """Called by the driver when somebody takes a connection."""
        if self._generations.get(connection, self._generation) != self._generation:
            await connection.disconnect(nowait=True)
        self._generations[connection] = self._generation
        await super().ensure_connection(connection)


class RedisClient:
    """One server, as the rest of this package uses it: commands and scripts, bounded and translated."""

    def __init__(self, url: str, *, lease_s: float = 30.0, locator: Locator | None = None) -> None:
        """With a `locator`, each connection is made to the address that it tells, not to that of the URL."""
        self.url, self.stream = split_url(url)
        self._locator = locator
        self.availability = Availability(long_silence_s=max(lease_s / 2, SHORTEST_SILENCE_S))
        self.on_distrust: Callable[[], None] | None = None
        """Called when open connections lead nowhere, or to a server that was demoted."""
        self.sharded = False
        """Whether channels belong to slots, and are published with SPUBLISH: in a cluster of Redis 7 and newer."""
        self.version: tuple[int, ...] = ()
        """Of the server, as far as it tells."""
        self._was_let_in = False
        self.facts: Mapping[str, str] = {}
        """What the server has said of itself (INFO) when it was checked; empty if it may not."""
        self.has_moved = False
        """Set by the client whose twin this is."""
        self._under_way: set[Guard] | None = None if locator is None else set()
        """What can be given up if the server turns out to be elsewhere; kept only if it can be."""
        self._twins: weakref.WeakSet[RedisClient] = weakref.WeakSet()
        # A repeated command could repeat its effect: whether to try again is for callers who know what they did.
        # Waits are bounded by `_guarded`; the driver's own socket time-out costs microseconds per reply.
        self._pool = Pool.from_url(
            self.url,
            max_connections=MOST_CONNECTIONS,
            timeout=COMMAND_TIMEOUT_S,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=5,
            retry=Retry(NoBackoff(), 0),
            client_name="shoal",
            **({} if self.url.startswith("unix:") else _keepalive()),
        )
        if locator is not None:
            self._pool.locate_by(locator)
        self._line, self._blocking_line = Line(self._pool), Line(self._pool)
        self.redis = redis.asyncio.Redis.from_pool(self._pool)
        # Replies as they come: the driver's reshaping differs between its versions, and costs time per reply.
        self.redis.response_callbacks.clear()

    def twin(self) -> RedisClient:
        """Another client of the same server, with connections of its own, for another event loop. What either learns
        about the server's state, both know."""
        other = RedisClient(self.url, locator=self._locator.twin() if self._locator is not None else None)
        other.stream = self.stream
        self.share_with(other)
        return other

    def share_with(self, other: RedisClient) -> None:
        """Let a twin know what is known of the server."""
        other.availability, other.sharded, other._was_let_in = self.availability, self.sharded, self._was_let_in
        self._twins.add(other)

    async def command(self, *args: Any, timeout_s: float | None = None) -> Any:
        """One command's reply."""
        with self._guarded(timeout_s):
            return await self._execute(*args)

    async def pipeline(
        self,
        commands: Sequence[Sequence[Any]],
        *,
        transaction: bool = False,
        timeout_s: float | None = None,
    ) -> list[Any]:
        """The replies of several commands, in one round trip. An error of any is raised."""
        with self._guarded(timeout_s):
            return await self._execute_all(commands, transaction=transaction)

    async def script(
        self, name: str, keys: Sequence[str], args: Sequence[Any], *, timeout_s: float | None = None
    ) -> Any:
        """A script's reply; the server is given its text if it does not have it."""
        text, sha = self._script(name)
        try:
            with self._guarded(timeout_s):
                try:
                    return await self._execute("EVALSHA", sha, len(keys), *keys, *args)
                except redis.exceptions.NoScriptError:
                    return await self._execute("EVAL", text, len(keys), *keys, *args)
        except QueueError:
            await self._refuse_oversized(max(map(_bytes_of, args), default=0))
            raise

    def link_at_once(self) -> Link | None:
        """The connection over which a script can be sent without waiting, and is carried out behind all that was sent
        over it before. None where there may be no such thing: at a server that others locate."""
        return self._line.link_at_once() if self._locator is None else None

    def send_script(self, link: Link, name: str, keys: Sequence[str], args: Sequence[Any], receiver: Receiver) -> None:
        """Send it at once over a `link_at_once`. It is for the receiver to bound its wait, to tell `availability` and
        `met` how it went, and to do with NOSCRIPT what `script` does."""
        command = ("EVALSHA", self._script(name)[1], len(keys), *keys, *args)
        link.send_now(hiredis.pack_command(command), receiver)

    async def blocking(
        self, commands: Sequence[Sequence[Any]], *, timeout_s: float, unheard: Callable[[list[Any]], None]
    ) -> list[Any]:
        """The replies of several commands of which the first one blocks, in one round trip. An error of any is raised.

        What was sent may be carried out long after its sender has gone. So if this is cancelled, the server is asked to
        end it now, and what it replies yet is told to `unheard`, before the cancel takes its course.
        """
        with self._guarded(timeout_s) as guard, await self._blocking_line.begin_alone(commands) as call:
            try:
                return await call.replies()
            except asyncio.CancelledError:
                if not guard.is_given_up:
                    if not call.is_answered:
                        await self.unblock()
                    if (replies := await call.heard_out(HEARD_OUT_WITHIN_S)) is not None:
                        unheard(replies)
                raise

    async def unblock(self) -> None:
        """Have the server end a blocking command now, as if its time were over. Where an ACL forbids that, and in a
        cluster, its time has to pass."""
        if (client_id := self._blocking_line.client_id) is not None:
            with contextlib.suppress(QueueError):
                await self.command("CLIENT", "UNBLOCK", client_id, timeout_s=_UNBLOCK_WITHIN_S)

    # How a command reaches the server: what a cluster's client does differently.

    def _script(self, name: str) -> tuple[str, str]:
        """A script's text and its SHA-1."""
        return script_text(name)

    async def _execute(self, *args: Any) -> Any:
        return await self._line.call(*args)

    async def _execute_all(self, commands: Sequence[Sequence[Any]], *, transaction: bool) -> list[Any]:
        if commands[0][0] in {"XREADGROUP", "BLPOP"}:  # it blocks its connection
            return await self._blocking_line.call_alone(commands)
        async with self.redis.pipeline(transaction=transaction) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute()

    async def _refuse_oversized(self, size: int) -> None:
        """A server cuts the connection on whoever sends it too long an argument: trying again would never end.

        Raises `QueueError` if that is what must have happened.
        """
        if size <= SMALLEST_LONGEST_ARGUMENT:
            return
        limit = await self._longest_argument()
        if limit is not None and size > limit:
            raise QueueError(
                f"the queue's server takes at most {limit} bytes at once, and this write has {size}: "
                "raise its proto-max-bulk-len"
            )

    async def _longest_argument(self) -> int | None:
        """What the server takes at most; None if it is away, or an ACL hides it."""
        for _ in range(2):  # the first time, over the very connection that it has just cut
            with contextlib.suppress(QueueError):
                _, limit = await self.command("CONFIG", "GET", "proto-max-bulk-len")
                return int(limit)
        return None

    def _guarded(self, timeout_s: float | None) -> Guard:
        """Around what talks to the server."""
        if self.has_moved:
            self.has_moved = False
            self.distrust()
        return Guard(self, COMMAND_TIMEOUT_S if timeout_s is None else timeout_s, self._under_way)

    def met(
        self, error: Exception, timeout_s: float = COMMAND_TIMEOUT_S, *, began_at: float | None = None
    ) -> QueueError:
        """Note an error of the driver's, and say what it means. `began_at`: when the attempt began that met it."""
        if isinstance(error, TimeoutError) and not str(error):
            error = TimeoutError(f"no answer within {timeout_s:g} s")
        ours = translated(error)
        if self._was_let_in and is_about_credentials(error):  # changed under way: somebody will mend it
            ours = BackendUnavailable(str(ours))
        if self._was_let_in and isinstance(ours, BackendUnavailable):
            self.availability.failed(ours, began_at=began_at, answers=is_refusal(error))
        if _is_no_fit_server(error):
            self.distrust()
        return ours

    def moved(self) -> None:
        """Somebody who knows says that the server is elsewhere now: give up what is under way, and use none of the
        present connections again. A server that was replaced may still answer, and forgets later what it confirmed."""
        while self._under_way:
            self._under_way.pop().give_up()
        self.distrust()
        for twin in self._twins:  # in another loop, so it acts at its next command; its present one is bounded
            twin.has_moved = True

    def distrust(self) -> None:
        """Let go of open connections: the next ones are made anew, by the address as it resolves then."""
        if self._locator is not None:
            self._locator.doubt()
        self._pool.distrust()
        self._line.drop()
        self._blocking_line.drop()
        if self.on_distrust is not None:
            self.on_distrust()

    async def check(self) -> None:
        """Raise unless the server answers and is new enough."""
        try:
            info = await self.command("INFO")
        except BackendMisconfigured:  # an ACL may hide INFO and allow all that we need
            await self.command("PING")
            self._was_let_in = True
            return
        except QueueError as error:
            raise type(error)(f"{error} ({masked(self.url)})") from error
        self._was_let_in = True
        self.facts = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
        version = self.facts.get("redis_version", "")
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        self.version = numbers
        if numbers < OLDEST_SERVER:
            raise BackendMisconfigured(f"the server at {masked(self.url)} is Redis {version}: 6.2 or newer is needed")
        self.availability.started(float(self.facts.get("uptime_in_seconds", "inf")))

    async def close(self) -> None:
        """Close all connections."""
        await self._line.close()
        await self._blocking_line.close()
        await self.redis.aclose()


def _bytes_of(argument: Any) -> int:
    text = argument.encode() if isinstance(argument, str) else argument
    return len(text) if isinstance(text, bytes) else 0


def _keepalive() -> dict[str, Any]:
    """The driver's options for probing silent connections, as far as this system has them."""
    options = {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}
    return {"socket_keepalive": True, "socket_keepalive_options": options}
