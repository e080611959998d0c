"""Secrets at rest: values of secret settings are encrypted with a key that only the environment holds.

`SHOAL_SECRET_KEY` is a text of 16 characters or more, the same in every process; `openssl rand -base64 32` makes one.
Several, separated by commas, let a key be changed: the first one seals, each one opens. AES-256-GCM; the setting's name
is authenticated too, so that no sealed value can be moved under another name.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from worker.errors import BadSetting

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VARIABLE = "SHOAL_SECRET_KEY"
SEALED = "sealed:1:"
"""A stored value that begins so is encrypted: the rest is base64 of nonce and ciphertext."""
_SHORTEST_KEY = 16
_NONCE_BYTES = 12


class CannotOpen(BadSetting):
    """A sealed value for which this process has no key, or a wrong one."""


class Sealer:
    """Seals and opens values of secret settings. Without a key it seals nothing and opens nothing sealed.

    Raises `BadSetting` for a key that is too short, or if the `cryptography` package is missing.
    """

    def __init__(self, keys: str = "") -> None:
        texts = [text.strip() for text in keys.split(",") if text.strip()]
        if any(len(text) < _SHORTEST_KEY for text in texts):
            raise BadSetting(f"{VARIABLE} is too short: at least {_SHORTEST_KEY} characters, as from openssl rand")
        self._ciphers = [_cipher(text) for text in texts]

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Sealer:
        """With the keys of `SHOAL_SECRET_KEY`."""
        return cls(environ.get(VARIABLE, ""))

    def __repr__(self) -> str:
        return f"<Sealer with {len(self._ciphers)} keys>"

    @property
    def seals(self) -> bool:
        """Whether there is a key."""
        return bool(self._ciphers)

    def seal(self, name: str, value: str) -> str:
        """The value as it is stored: encrypted if there is a key."""
        if not self._ciphers:
            return value
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[0].encrypt(nonce, value.encode(), name.encode())
        return SEALED + base64.b64encode(nonce + sealed).decode()

    def open(self, name: str, stored: str) -> str:
        """The value behind what is stored. Raises `CannotOpen`."""
        if not stored.startswith(SEALED):
            return stored
        if not self._ciphers:
            raise CannotOpen(f"{name} is encrypted, and {VARIABLE} is not set in this process")
        from cryptography.exceptions import InvalidTag  # imported by the ciphers already

        try:
            raw = base64.b64decode(stored.removeprefix(SEALED), validate=True)
        except binascii.Error as error:
            raise CannotOpen(f"{name} is damaged: set it again") from error
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], name.encode()).decode()
            except (InvalidTag, ValueError):
                continue
        raise CannotOpen(f"{name} was encrypted with another {VARIABLE} than this process has: set it again")


def _cipher(text: str) -> AESGCM:
    try:  # 60 ms, and an extra: only for those who set the variable
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError as error:
        raise BadSetting(
            f"{VARIABLE} is set, and the cryptography package is missing: install shoal[secrets]"
        ) from error
    derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"shoal settings").derive(text.encode())
    return AESGCM(derived)
