"""The URL of a NATS queue: servers, queue name, credentials, TLS and how many copies are kept."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct, field

from queue_backends.errors import BackendMisconfigured

DEFAULT_STREAM = "agent-tasks"
DEFAULT_PORT = 4222
MOST_REPLICAS = 5
_OPTIONS = frozenset(
    {"stream", "replicas", "token", "creds", "nkey", "ca", "cert", "key", "tls", "tls_name", "tls_first", "domain"}
)


class Address(Struct, frozen=True, kw_only=True):
    """What a URL says. Secrets are in `login` alone, which no repr shows."""

    servers: tuple[str, ...]
    """`nats://host:port`, without credentials."""
    stream: str = DEFAULT_STREAM
    replicas: int = 0
    """0: one, or as the stream has it already."""
    domain: str = ""
    tls: bool = False
    options: Mapping[str, str] = {}
    """The TLS options that were given."""
    login: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Address(servers={self.servers}, stream={self.stream!r}, replicas={self.replicas}, tls={self.tls})"

    def connect_options(self) -> dict[str, Any]:
        """What the driver's `connect` takes of it. Raises `BackendMisconfigured` for files that cannot be used."""
        options: dict[str, Any] = {"servers": list(self.servers), **self.login}
        if self.tls:
            options["tls"] = self._tls_context()
            options["tls_handshake_first"] = self.options.get("tls_first") == "1"
            if name := self.options.get("tls_name"):
                options["tls_hostname"] = name
        return options

    def _tls_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.options.get("ca"))
            if certificate := self.options.get("cert"):
                context.load_cert_chain(certificate, self.options.get("key"))
        except (OSError, ssl.SSLError) as error:
            raise BackendMisconfigured(f"the TLS files of the NATS URL cannot be used: {error}") from error
        if self.options.get("tls") == "insecure":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def parse_address(url: str) -> Address:
    """Read a `nats://` or `nats+tls://` URL; several servers are separated by commas.

    Raises `BackendMisconfigured` naming the part that does not fit.
    """
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query))
    for name in given.keys() - _OPTIONS:
        raise BackendMisconfigured(f"unknown option {name!r} in the NATS URL: known are {', '.join(sorted(_OPTIONS))}")
    if parts.path.strip("/"):
        raise BackendMisconfigured(f"the NATS URL has a path {parts.path!r}: name the queue with ?stream=")
    credentials, _, hosts = parts.netloc.rpartition("@")
    tls = parts.scheme == "nats+tls" or bool(given.keys() & {"tls", "ca", "cert", "tls_name", "tls_first"})
    return Address(
        servers=tuple(f"{'tls' if tls else 'nats'}://{_host_port(host)}" for host in hosts.split(",")),
        stream=given.get("stream") or DEFAULT_STREAM,
        replicas=_replicas(given.get("replicas", "")),
        domain=given.get("domain", ""),
        tls=tls,
        options=given,
        login=_login(credentials, given),
    )


def _host_port(text: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "127.0.0.1", parts.port or DEFAULT_PORT
    except ValueError as error:
        raise BackendMisconfigured(f"the NATS URL names a server {text!r}: it must be host:port") from error
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _replicas(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_REPLICAS):
        raise BackendMisconfigured(f"replicas={text!r} in the NATS URL: it must be a number from 1 to {MOST_REPLICAS}")
    return int(text)


def _login(credentials: str, given: Mapping[str, str]) -> dict[str, str]:
    """A user with a password, a token, or a file that has them."""
    login: dict[str, str] = {}
    user, separator, password = credentials.partition(":")
    if separator:
        login = {"user": unquote(user), "password": unquote(password)}
    elif user:
        login = {"token": unquote(user)}
    if token := given.get("token"):
        login["token"] = token
    for option, name in (("creds", "user_credentials"), ("nkey", "nkeys_seed")):
        if path := given.get(option):
            if not Path(path).is_file():
                raise BackendMisconfigured(f"{option}={path!r} in the NATS URL is no file: give the path of one")
            login[name] = path
    return login


def masked(url: str) -> str:
    """A URL that can be shown: without password and token."""
    parts = urlsplit(url)
    credentials, separator, hosts = parts.netloc.rpartition("@")
    if separator:
        user, colon, _ = credentials.partition(":")
        hosts = f"{user}:***@{hosts}" if colon else f"***@{hosts}"
    pairs = (pair.partition("=") for pair in parts.query.split("&") if pair)
    query = "&".join(f"{name}=***" if name == "token" else f"{name}{equals}{value}" for name, equals, value in pairs)
    return parts._replace(netloc=hosts, query=query).geturl()
