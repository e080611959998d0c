"""Values of a plugin that outlive its messages, in the state store.

`agent_plugins/kv/<plugin>/<namespace>/<key>`; the namespace is the tenant's, so that no tenant sees another's.
"""

from __future__ import annotations

import base64
from urllib.parse import quote

from queue_backends import StateStore
from worker.agent_plugins.errors import PluginMisuse
from worker.agent_plugins.permissions import Permissions
from worker.agents.model import PermissionScope
from worker.persistence import persistently

MOST_KEY_CHARS = 255
MOST_VALUE_BYTES = 1024 * 1024
MOST_LISTED = 1000
MOST_EXPIRY_S = 366 * 24 * 3600.0
_WHAT = "keep an agent plugin's values"


class StoredValues:
    """Reads and writes at once, without a record: for `initialize`, and under `StepValues` of a message."""

    def __init__(self, state: StateStore, plugin: str, namespace: str) -> None:
        self._state = state
        self._prefix = f"agent_plugins/kv/{plugin}/{quote(namespace, safe='')}/"

    async def get(self, key: str) -> bytes | None:
        """The value, if there is one."""
        check_key(key)
        return await persistently(lambda: self._state.get(self._prefix + key), _WHAT)

    async def set(self, key: str, value: bytes | str, *, expires_in_s: float | None = None) -> bool:
        """Set a value; says whether there was none."""
        check_key(key)
        plain, ttl_s = checked_value(value), checked_expiry(expires_in_s)
        before = await persistently(lambda: self._state.get(self._prefix + key), _WHAT)
        await persistently(lambda: self._state.set(self._prefix + key, plain, ttl_s=ttl_s), _WHAT)
        return before is None

    async def delete(self, key: str) -> bool:
        """Delete a value; says whether there was one."""
        check_key(key)
        return await persistently(lambda: self._state.delete(self._prefix + key), _WHAT)

    async def list(self, prefix: str = "") -> list[str]:
        """Keys that begin so."""
        if len(prefix) > MOST_KEY_CHARS:
            raise PluginMisuse(f"the prefix has {len(prefix)} characters, at most {MOST_KEY_CHARS} are allowed")

        async def read() -> list[str]:
            found: list[str] = []
            async for key, _ in self._state.scan(self._prefix + prefix):
                found.append(key.removeprefix(self._prefix))
            return sorted(found)[:MOST_LISTED]

        return await persistently(read, _WHAT)


class GuardedValues:
    """Values for a plugin's `initialize`: if it has the scope."""

    def __init__(self, values: StoredValues, permissions: Permissions) -> None:
        self._values = values
        self._permissions = permissions

    async def get(self, key: str) -> bytes | None:
        """The value, if there is one."""
        return await self._allowed().get(key)

    async def set(self, key: str, value: bytes | str, *, expires_in_s: float | None = None) -> bool:
        """Set a value; says whether there was none."""
        return await self._allowed().set(key, value, expires_in_s=expires_in_s)

    async def delete(self, key: str) -> bool:
        """Delete a value; says whether there was one."""
        return await self._allowed().delete(key)

    async def list(self, prefix: str = "") -> list[str]:
        """Keys that begin so."""
        return await self._allowed().list(prefix)

    def _allowed(self) -> StoredValues:
        self._permissions.need(PermissionScope.KV_READWRITE)
        return self._values


def check_key(key: str) -> None:
    """Raises `PluginMisuse` for what is no key."""
    if not isinstance(key, str) or not key:
        raise PluginMisuse(f"the key is {key!r}: use text, not empty")
    if len(key) > MOST_KEY_CHARS:
        raise PluginMisuse(f"the key has {len(key)} characters, at most {MOST_KEY_CHARS} are allowed")
    if any(ord(char) < 0x20 or 0xD800 <= ord(char) < 0xE000 for char in key):
        raise PluginMisuse("the key has control characters: use printable text")


def checked_value(value: bytes | str) -> bytes:
    """The value's bytes. Raises `PluginMisuse` for what is none, or is too long."""
    if isinstance(value, str):
        value = value.encode(errors="surrogatepass")
    if not isinstance(value, bytes | bytearray):
        raise PluginMisuse(f"the value is {type(value).__name__}: use bytes or text, encode others as JSON")
    if len(value) > MOST_VALUE_BYTES:
        raise PluginMisuse(f"the value has {len(value)} bytes, at most {MOST_VALUE_BYTES} are allowed")
    return bytes(value)


def checked_expiry(expires_in_s: float | None) -> float | None:
    """The lifetime. Raises `PluginMisuse` unless it is more than nothing, and at most a year."""
    if expires_in_s is not None and not 0 < expires_in_s <= MOST_EXPIRY_S:
        raise PluginMisuse(f"expires_in_s is {expires_in_s}: use more than 0 and at most {MOST_EXPIRY_S:g}, or None")
    return expires_in_s


def to_record(value: bytes | None) -> str | None:
    """A value as the journal holds it."""
    return None if value is None else base64.b64encode(value).decode()


def from_record(recorded: str | None) -> bytes | None:
    """The value that `to_record` wrote."""
    return None if recorded is None else base64.b64decode(recorded)
