"""Keys and addresses come from the environment, and are read at each call: a rotated key needs no restart."""

from __future__ import annotations

import os

from providers.errors import AuthenticationFailed
from providers.messages import AgentConfig


def api_key(
    config: AgentConfig, default_env: str, provider: str, *, required: bool = True, live: str = "", instead: str = ""
) -> str:
    """The key from `config.api_key_env`, or else the `live` setting's, or else from the vendor's usual variable; empty
    if it may be missing. `instead` is what one can do without a key, for the message.

    Raises `AuthenticationFailed` if it is required and not set, or cannot be a key.
    """
    name = config.api_key_env or default_env
    key = os.environ.get(name, "").strip()
    if live and not config.api_key_env:
        name, key = "the setting api_key", live.strip()
    if not key and (required or config.api_key_env):
        said = f"{name} is not set; required for the {provider} provider" + (f" (or {instead})" if instead else "")
        raise AuthenticationFailed(said, provider=provider)
    if not (key.isascii() and key.isprintable()):
        raise AuthenticationFailed(
            f"{name} has characters that no key has (line breaks or non-ASCII): set it again, without quotes or breaks",
            provider=provider,
        )
    return key


def base_url(config: AgentConfig, env: str, default: str, *, live: str = "") -> str:
    """`config.base_url`, or the `live` setting's, or the variable, or the vendor's own address; without a slash at the
    end."""
    return (config.base_url or live.strip() or os.environ.get(env, "").strip() or default).rstrip("/")
