"""Tokens that open webhooks: made here and kept as hashes, or in an environment variable that the trigger names."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping

from queue_backends import StateStore
from worker.objects import BadObject, Stored
from worker.teams.triggers.model import Trigger

PREFIX = "shtrg_"
"""What tokens begin with, so that secret scanners know them."""
_BYTES = 32


class TriggerTokens:
    """The tokens of all triggers. Every method may raise `BackendUnavailable`."""

    def __init__(self, state: StateStore, environ: Mapping[str, str] = os.environ) -> None:
        self._state = state
        self._environ = environ

    async def make(self, stored: Stored[Trigger]) -> str:
        """A new token, which is shown this once; the one before opens nothing any more. Raises `BadObject`."""
        trigger = stored.value
        if trigger.type != "webhook":
            raise BadObject(f"trigger {trigger.slug!r} is of type {trigger.type!r}: only webhooks have tokens")
        if trigger.token_env:
            raise BadObject(f"trigger {trigger.slug!r} takes its token from {trigger.token_env}: change it there")
        token = PREFIX + secrets.token_urlsafe(_BYTES)
        await self._state.set(_key(stored), _hash(token))
        return token

    async def has(self, stored: Stored[Trigger]) -> bool:
        """Whether any token opens it, as far as can be told here."""
        if stored.value.token_env:
            return bool(self._environ.get(stored.value.token_env))
        return await self._state.get(_key(stored)) is not None

    async def opens(self, token: str, stored: Stored[Trigger] | None) -> bool:
        """Whether a token opens a trigger. It takes as long for a trigger that is not there."""
        expected: bytes | None = None
        if stored is not None and stored.value.token_env:
            given = self._environ.get(stored.value.token_env, "")
            expected = _hash(given) if given else None
        elif stored is not None:
            expected = await self._state.get(_key(stored))
        is_same = hmac.compare_digest(_hash(token), expected or _hash(secrets.token_hex(8)))
        return is_same and expected is not None and bool(token)


def _hash(token: str) -> bytes:
    """They are random and long: a plain hash cannot be turned back."""
    return hashlib.sha256(token.encode()).hexdigest().encode()


def _key(stored: Stored[Trigger]) -> str:
    return f"trigger-tokens/{stored.value.namespace}/{stored.value.slug}/{stored.id}"
