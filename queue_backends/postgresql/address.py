"""What a `postgresql://` URL names: a server, a database, a schema in it, and a queue in that."""

from __future__ import annotations

import re
from typing import Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from msgspec import Struct

from queue_backends.errors import BackendMisconfigured

DEFAULT_SCHEMA = "shoal"
DEFAULT_STREAM = "agent-tasks"
LONGEST_NAME = 40
"""Of a schema. Channels are named after it, and the server takes 63 bytes."""

_SCHEMA = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{LONGEST_NAME - 1}}}")
_OURS = frozenset({"stream", "schema"})
_SECRET = re.compile(r"passw|sslkey|secret|token", re.IGNORECASE)


class Address(Struct, frozen=True):
    """A URL taken apart."""

    server: str
    """The URL as libpq takes it, with the password and without our own parameters."""
    schema: str = DEFAULT_SCHEMA
    stream: str = DEFAULT_STREAM

    @classmethod
    def of(cls, url: str) -> Self:
        """Raises `BackendMisconfigured` for names that cannot be."""
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        ours = {name: value for name, value in query if name in _OURS and value}
        schema, stream = ours.get("schema", DEFAULT_SCHEMA), ours.get("stream", DEFAULT_STREAM)
        if not _SCHEMA.fullmatch(schema):
            raise BackendMisconfigured(
                f"schema={schema!r} in the queue's URL: a schema's name has letters, digits and _, "
                f"begins with no digit, and is at most {LONGEST_NAME} characters long"
            )
        if "\x00" in stream:
            raise BackendMisconfigured(f"stream={stream!r} in the queue's URL: the name may hold no NUL character")
        rest = [(name, value) for name, value in query if name not in _OURS]
        # quote_via: libpq takes "+" for itself, not for a space
        libpq = urlencode(rest, quote_via=quote)
        server = urlunsplit(parts._replace(scheme="postgresql", query=libpq))
        return cls(server, schema, stream)

    def __repr__(self) -> str:
        return f"Address({self.shown!r}, schema={self.schema!r}, stream={self.stream!r})"

    @property
    def shown(self) -> str:
        """The server as it can be shown: without its password."""
        parts = urlsplit(self.server)
        user, at, hosts = parts.netloc.rpartition("@")
        if ":" in user:
            user = f"{user.partition(':')[0]}:***"
        query = [(name, "***" if _SECRET.search(name) else value) for name, value in parse_qsl(parts.query)]
        shown = urlencode(query, safe="*/:", quote_via=quote)
        return urlunsplit(parts._replace(netloc=f"{user}{at}{hosts}", query=shown))

    def masked(self, text: str) -> str:
        """A message without what is secret here: the server's library may quote from the URL."""
        for secret in self._secrets():
            text = text.replace(secret, "***")
        return text

    def _secrets(self) -> list[str]:
        parts = urlsplit(self.server)
        password = parts.netloc.rpartition("@")[0].partition(":")[2]
        named = [value for name, value in parse_qsl(parts.query) if _SECRET.search(name) and name != "sslkey"]
        found = {password, unquote(password), *named, *(quote(value, safe="") for value in named)}
        return sorted((secret for secret in found if secret), key=len, reverse=True)
