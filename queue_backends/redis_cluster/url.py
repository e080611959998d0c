"""`redis+cluster://host:port,host2:port2?stream=agents&partitions=8`: what a cluster's URL says."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from queue_backends.errors import BackendMisconfigured
from queue_backends.redis.client import masked, split_url
from queue_backends.redis.keys import DEFAULT_STREAM
from queue_backends.redis.locating import Address

DEFAULT_PORT = 6379
MOST_PARTITIONS = 1024
"""More would cost every process a connection each, and gain nothing."""
MOST_REPLICAS = 10
_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}


class ClusterUrl(NamedTuple):
    """A cluster, a queue on it, and how to talk to its servers."""

    text: str
    """As it was given, without the queue's name."""
    seeds: tuple[Address, ...]
    """Servers of the cluster to begin with; any that answers tells of all others."""
    server_url: str
    """A `redis://` or `rediss://` URL with user, password and options; its host is the first seed."""
    queue: str
    """The queue's name as it was given, without enclosing braces."""
    partitions: int | None
    """None: as the queue has them."""
    wait_replicas: int
    """So many replicas must have a write before it counts as done."""

    @property
    def home(self) -> str:
        """The name whose slot holds what is not of one partition."""
        return self.queue if has_tag(self.queue) else f"{{{self.queue}}}"

    def partition_queue(self, partition: int, partitions: int) -> str:
        """The name of one partition's queue; a queue of one partition has no numbers."""
        return self.home if partitions == 1 else f"{{{self.queue}:{partition}}}"


def has_tag(name: str) -> bool:
    """Whether a part in braces decides over the slot of all names that begin with this one."""
    start = name.find("{")
    end = name.find("}", start + 1)
    return start >= 0 and end > start + 1


def parse(url: str) -> ClusterUrl:
    """Read a URL. Raises `BackendMisconfigured` that says what is wrong with it."""
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None:
        raise BackendMisconfigured(f"{masked(url)!r} is no cluster's URL: write redis+cluster://host:port,host2:port2")
    if parts.path.strip("/") not in ("", "0"):
        raise BackendMisconfigured(f"{masked(url)!r} names database {parts.path[1:]!r}: a cluster has database 0 alone")
    userinfo, at, hosts = parts.netloc.rpartition("@")
    seeds = tuple(_address(text, url) for text in hosts.split(",") if text)
    if not seeds:
        raise BackendMisconfigured(f"{masked(url)!r} names no server: write redis+cluster://host:port,host2:port2")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    queue = _queue(options.pop("stream", "") or DEFAULT_STREAM)
    partitions = _whole_number(options, "partitions", 1, MOST_PARTITIONS)
    wait_replicas = _whole_number(options, "wait_replicas", 0, MOST_REPLICAS) or 0
    if partitions is not None and partitions > 1 and has_tag(queue):
        raise BackendMisconfigured(
            f"?stream={queue} has braces, which {partitions} partitions need for themselves: leave them out"
        )
    server = SplitResult(scheme, userinfo + at + _netloc(seeds[0]), "", urlencode(options), "")
    return ClusterUrl(split_url(url)[0], seeds, urlunsplit(server), queue, partitions, wait_replicas)


def at(server_url: str, address: Address) -> str:
    """The same URL, for another server of the cluster."""
    parts = urlsplit(server_url)
    userinfo, sign, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=userinfo + sign + _netloc(address)))


def _queue(name: str) -> str:
    """`{agents}` and `agents` are the same queue."""
    inner = name[1:-1]
    is_enclosed = len(name) > 2 and name[0] == "{" and name[-1] == "}" and not set(inner) & set("{}")
    return inner if is_enclosed else name


def _address(text: str, url: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise BackendMisconfigured(f"{masked(url)!r}: {text!r} is no host:port")
    return Address(unquote(host).strip("[]"), int(port))


def _netloc(address: Address) -> str:
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


def _whole_number(options: dict[str, str], name: str, least: int, most: int) -> int | None:
    text = options.pop(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise BackendMisconfigured(f"?{name}={text}: it must be a whole number from {least} to {most}")
    return int(text)
