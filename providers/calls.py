"""The values of the transport: what is asked, within which limits, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from providers.messages import AgentConfig


class Limits(Struct, frozen=True, kw_only=True):
    """Time limits and retries of one call; see the fields of the same names in `AgentConfig`."""

    connect_timeout_s: float = 10.0
    first_event_timeout_s: float = 120.0
    idle_timeout_s: float = 60.0
    max_retries: int = 3
    max_retry_wait_s: float = 60.0

    @classmethod
    def of(cls, config: AgentConfig) -> Limits:
        """The limits that an agent's configuration sets."""
        return cls(
            connect_timeout_s=config.connect_timeout_s,
            first_event_timeout_s=config.first_event_timeout_s,
            idle_timeout_s=config.idle_timeout_s,
            max_retries=config.max_retries,
            max_retry_wait_s=config.max_retry_wait_s,
        )


class Call(Struct, frozen=True, kw_only=True):
    """One request to a provider. Its `repr` shows neither headers nor body."""

    provider: str
    url: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    method: str = "POST"
    secrets: tuple[str, ...] = ()
    """Texts in the address or the body that no message may show. Those in headers are known anyway."""

    def __repr__(self) -> str:
        return f"Call({self.method} {shown(self.url)}, {len(self.body)} bytes)"


class Response(Struct, frozen=True, kw_only=True):
    """An HTTP answer, read whole. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def shown(url: str) -> str:
    """An address without user name, password, query and fragment, which may be secret."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(unreadable URL)"
    return f"{parts.scheme}://{host}{port}{parts.path}" if host else parts.path
