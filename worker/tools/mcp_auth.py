"""How a worker shows an MCP server who it is: a bearer token, or a client certificate. Error texts are ark's."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

from msgspec import Struct

from worker.errors import ToolSetupFailed
from worker.tools.config import McpServer
from worker.tools.redaction import REDACTED


class Credentials(Struct, frozen=True, kw_only=True):
    """What requests to the server carry."""

    token: str = ""
    own_headers: Mapping[str, str] = {}
    """Those that the server's declaration names."""
    tls: ssl.SSLContext | None = None
    cert: tuple[str, str] | None = None
    """Paths of the certificate and the key that `tls` was made of."""

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers of every request: the server's own, and the token's if there is one."""
        return {**self.own_headers, **({"Authorization": f"Bearer {self.token}"} if self.token else {})}

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be seen in any message."""
        return tuple(filter(None, (self.token, *self.own_headers.values())))

    def __repr__(self) -> str:
        return f"Credentials(token={REDACTED if self.token else ''!r}, tls={self.tls is not None})"


async def load_credentials(server: McpServer, environ: Mapping[str, str]) -> Credentials:
    """Read the token or the certificate as they are now; both may be renewed while the worker runs.

    Raises `ToolSetupFailed`: `MCP server "<name>" auth setup failed: ...`.
    """
    try:
        own = {name: _header(name, variable, environ) for name, variable in server.headers_env.items()}
        if server.auth_type == "bearer":
            return Credentials(token=_token(server, environ), own_headers=own)
        if server.auth_type == "mtls":
            return Credentials(tls=await _tls(server), cert=(server.cert_file, server.key_file), own_headers=own)
    except ToolSetupFailed as error:
        raise ToolSetupFailed(f'MCP server "{server.name}" auth setup failed: {error}') from error
    return Credentials(own_headers=own)


def _header(name: str, variable: str, environ: Mapping[str, str]) -> str:
    value = environ.get(variable, "").strip()
    if not value or not value.isprintable():
        raise ToolSetupFailed(f'env var "{variable}" for header {name} is not set, or is no line of text')
    return value


def _token(server: McpServer, environ: Mapping[str, str]) -> str:
    if not server.token_env_var:
        raise ToolSetupFailed("bearer auth configured but tokenEnvVar is empty")
    token = environ.get(server.token_env_var, "").strip()
    if not token:
        raise ToolSetupFailed(f'bearer token env var "{server.token_env_var}" is not set or empty')
    return token


async def _tls(server: McpServer) -> ssl.SSLContext:
    if not server.cert_file or not server.key_file:
        raise ToolSetupFailed("mtls auth configured but certFile or keyFile is empty")
    try:
        return await asyncio.to_thread(_load_tls, server.cert_file, server.key_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ToolSetupFailed(
            f"loading client certificate {server.cert_file} with key {server.key_file}: {error}"
        ) from error


def _load_tls(cert_file: str, key_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_cert_chain(cert_file, key_file)
    return context
