"""What a `redis+sentinel://` URL says: whom to ask, for which master, and how to talk to either."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

from queue_backends.errors import BackendMisconfigured
from queue_backends.redis.locating import Address

PORT = 26379
SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
"""Of such a URL -> of a URL of its master."""
EXAMPLE = "redis+sentinel://host1:26379,host2:26379/mymaster"

_OURS = ("sentinel_username", "sentinel_password", "sentinel_tls")
_YES, _NO = ("yes", "true", "1"), ("no", "false", "0", "")


class SentinelUrl(NamedTuple):
    """Shows no secret: neither in `repr` nor in the texts of errors."""

    sentinels: tuple[Address, ...]
    master: str
    """The name under which the sentinels know it."""
    master_url: str
    """`redis://` or `rediss://` with everything but the address, in whose place the master's name stands."""
    connection: dict[str, Any]
    """Options of the driver for connections to sentinels."""
    tls_to_sentinels: bool
    wait_replicas: int
    """A write counts once so many replicas have it."""

    def __repr__(self) -> str:
        return f"<SentinelUrl {self.master} of {self.hosts}>"

    @property
    def hosts(self) -> str:
        """The sentinels, as the URL has them."""
        return ", ".join(f"{host}:{port}" for host, port in self.sentinels)


def parse(url: str) -> SentinelUrl:
    """Take a URL apart. Raises `BackendMisconfigured` that says what is wrong with it."""
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    userinfo, at, hosts = authority.rpartition("@")
    name, _, database = path.strip("/").partition("/")
    if not name:
        raise BackendMisconfigured(f"the URL {scheme}://{hosts} names no master: it has the form {EXAMPLE}")
    if database and not database.isdigit():
        raise BackendMisconfigured(f"{database!r} in {scheme}://{hosts}/{path} is no database: use a number, such as 0")
    options = dict(parse_qsl(query, keep_blank_values=True))
    own = {key: options.pop(key) for key in list(options) if key.startswith("sentinel_")}
    wait_replicas = options.pop("wait_replicas", "0")
    if not wait_replicas.isdigit():
        raise BackendMisconfigured(f"wait_replicas={wait_replicas} in {scheme}://{hosts} is no number of replicas")
    if unknown := sorted(own.keys() - set(_OURS)):
        raise BackendMisconfigured(f"unknown option {unknown[0]!r} in {scheme}://{hosts}: there are {', '.join(_OURS)}")
    tail = f"?{urlencode(options)}" if options else ""
    return SentinelUrl(
        sentinels=_addresses(hosts, scheme),
        master=unquote(name),
        master_url=f"{SCHEMES[scheme]}://{userinfo}{at}{quote(unquote(name))}/{database or 0}{tail}",
        connection=_connection(own, options),
        tls_to_sentinels=own.get("sentinel_tls", "") in _YES,
        wait_replicas=int(wait_replicas),
    )


def _addresses(hosts: str, scheme: str) -> tuple[Address, ...]:
    found = []
    for item in filter(None, (item.strip() for item in hosts.split(","))):
        host, colon, port = item.rpartition(":")
        if not colon or item.endswith("]"):
            host, port = item, str(PORT)
        if not port.isdigit() or not 0 < int(port) < 65_536:
            raise BackendMisconfigured(f"{item!r} is no address of a sentinel: use host:port, such as host1:{PORT}")
        found.append(Address(host.strip("[]"), int(port)))
    if not found:
        raise BackendMisconfigured(f"the URL {scheme}:// names no sentinel: it has the form {EXAMPLE}")
    return tuple(found)


def _connection(own: dict[str, str], options: dict[str, str]) -> dict[str, Any]:
    """Sentinels have users of their own; TLS files are those of the master's connection."""
    found: dict[str, Any] = {
        "username": own.get("sentinel_username") or None,
        "password": own.get("sentinel_password") or None,
    }
    tls = own.get("sentinel_tls", "")
    if tls not in (*_YES, *_NO):
        raise BackendMisconfigured(f"sentinel_tls={tls} is neither yes nor no")
    if tls in _YES:
        found |= {key: value for key, value in options.items() if key.startswith("ssl_")}
        if "ssl_check_hostname" in found:
            found["ssl_check_hostname"] = found["ssl_check_hostname"].lower() in _YES
    return found
