"""Settings that change while the fleet runs: stored once, in the `StateStore`, and mirrored in every process.

- `settings:<key>` holds the value's text; a secret's may be encrypted (`worker.sealing`).
- `settings:~hello` is written by a mirror that begins to watch, to hear it: then it knows that it misses nothing.

A setting that is unset leaves an empty value behind for a month, so that a process that was cut off hears of it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Self

import structlog

from queue_backends import StateChange, StateStore
from worker.errors import BadSetting
from worker.following import Following
from worker.listeners import Listeners
from worker.sealing import CannotOpen, Sealer
from worker.setting_keys import check_key, is_secret

PREFIX = "settings:"
MOST_SETTINGS = 10_000
REFERENCE = "env:"
_HELLO = f"{PREFIX}~hello"
_UNSET_TTL_S = 30 * 24 * 3600.0
_LOAD_LIMIT_S = 60.0
_RECONCILE_S = 6 * 3600.0
"""So often everything is read anew, for keys that somebody deleted by other means while this process was cut off."""

log = structlog.get_logger(__name__)

Changed = Callable[[str, str | None], None]
"""Is told a key and its new value; None: it was unset. Must return at once."""


class LiveSettings:
    """One process' mirror of the live settings. Entered (`async with`), it holds all of them and follows every change,
    which takes well below a second; while the store is away it keeps what it knew last.

    Not entered, it holds what `load` read, and `set` and `unset` work as well.
    """

    def __init__(self, state: StateStore, *, sealer: Sealer | None = None) -> None:
        self._state = state
        self._sealer = Sealer.from_environment() if sealer is None else sealer
        self._values: dict[str, str] = {}
        self._unreadable: dict[str, str] = {}
        self._listeners = Listeners[Changed]()
        self._following = Following(
            state, PREFIX, _HELLO, what="live settings", changed=self._heard, keep=self._keep_whole
        )
        self._touched: set[str] = set()
        """Keys that a change has come for since the present reading began: what was read of them may be older."""

    def __repr__(self) -> str:
        return f"<LiveSettings, {len(self._values)} keys>"

    # Reading

    def get(self, key: str) -> str | None:
        """The value of one setting, opened if it was sealed; None if it is not set."""
        return self._values.get(key)

    def under(self, prefix: str) -> Mapping[str, str]:
        """All settings whose key begins with `prefix`, by their whole key, sorted."""
        found = {key: self._values[key] for key in sorted(self._values) if key.startswith(prefix)}
        return MappingProxyType(found)

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Keys whose sealed value this process cannot open, and why. For everyone else here they are not set."""
        return MappingProxyType(self._unreadable)

    @property
    def sealer(self) -> Sealer:
        """What keeps secrets at rest."""
        return self._sealer

    def on_change(self, callback: Changed) -> Callable[[], None]:
        """Call back, in this event loop, for each change from now on; call what is returned to stop that."""
        return self._listeners.add(callback)

    # Writing

    async def set(self, key: str, value: str) -> None:
        """Set a setting for the whole fleet; a secret one is sealed if there is a key for that.

        Raises `BadSetting` if no such setting exists or the value does not fit, `BackendUnavailable`.
        """
        if not value:
            raise BadSetting(f"{key}: the value is empty; unset it instead")
        await check_key(self._state, key, value)
        if key not in self._values and len(self._values) >= MOST_SETTINGS:
            raise BadSetting(f"there are {MOST_SETTINGS} live settings already: unset some")
        stored = value
        if not value.startswith(REFERENCE) and await is_secret(self._state, key):
            stored = self._sealer.seal(key, value)
        self._touched.discard(key)
        await self._state.set(PREFIX + key, stored.encode())
        self._written(key, stored)

    async def unset(self, key: str) -> bool:
        """Take a setting away; says whether it was there. Raises `BackendUnavailable`."""
        was_there = bool(await self._state.get(PREFIX + key))
        self._touched.discard(key)
        await self._state.set(PREFIX + key, b"", ttl_s=_UNSET_TTL_S)
        self._written(key, "")
        return was_there

    def _written(self, key: str, stored: str) -> None:
        """Our own write shows at once; unless the watch has told of this key meanwhile, which may be newer."""
        if key not in self._touched:
            self._put(key, stored)

    # Following

    async def load(self) -> None:
        """Read all settings anew. Raises `BackendUnavailable`; then those known before stay."""
        self._touched.clear()
        found = {key.removeprefix(PREFIX): _text(value) async for key, value in self._state.scan(PREFIX)}
        found.pop(_HELLO.removeprefix(PREFIX), None)
        gone = [key for key in (*self._values, *self._unreadable) if key not in found]
        for key, stored in (*found.items(), *((key, "") for key in gone)):
            if key not in self._touched:
                self._put(key, stored)

    async def __aenter__(self) -> Self:
        """Read all settings and follow them. Raises `BackendUnavailable` if that takes more than a minute."""
        await self._following.begin(_LOAD_LIMIT_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._following.stop()

    def _heard(self, change: StateChange) -> None:
        key = change.key.removeprefix(PREFIX)
        self._touched.add(key)
        self._put(key, _text(change.value or b""))

    async def _keep_whole(self) -> None:
        await self._following.read_again_and_again(self.load, _RECONCILE_S)

    def _put(self, key: str, stored: str) -> None:
        before = self._values.get(key)
        value = self._opened(key, stored) if stored else None
        if not stored:
            self._unreadable.pop(key, None)
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value
        if value != before:
            self._tell(key, value)

    def _opened(self, key: str, stored: str) -> str | None:
        try:
            value = self._sealer.open(key, stored)
        except CannotOpen as error:
            if self._unreadable.get(key) != str(error):
                self._unreadable[key] = str(error)
                log.warning("a live setting cannot be read", setting=key, error=str(error))
            return None
        self._unreadable.pop(key, None)
        return value

    def _tell(self, key: str, value: str | None) -> None:
        for callback in self._listeners:
            try:
                callback(key, value)
            except Exception:  # the others are told all the same
                log.exception("a change of a live setting was not taken", setting=key)


def _text(stored: bytes) -> str:
    return stored.decode(errors="replace")
