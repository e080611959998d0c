"""Signatures of callbacks, in the format of Standard Webhooks, which every receiver's library for it can check.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md: HMAC-SHA256 over
`{id}.{timestamp}.{body}`, base64, as `v1,<signature>`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from worker.gateway.problem import Problem

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with
_FEWEST_BYTES = 24
_MOST_BYTES = 64


def check_secret(secret: str) -> None:
    """Raise `Problem` 422 for what is no secret; the message does not show it. An empty one is none, and well."""
    if secret:
        _key_of(secret)


def signed_headers(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a call: id and time, and with a secret the signature. `timestamp` in Unix seconds."""
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if secret:
        signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
        digest = hmac.new(_key_of(secret), signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def _key_of(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not _FEWEST_BYTES <= len(key) <= _MOST_BYTES:
        raise Problem(
            422,
            f"callback.secret must be {SECRET_PREFIX!r} and base64 of {_FEWEST_BYTES} to {_MOST_BYTES} bytes, as from: "
            f'echo "{SECRET_PREFIX}$(openssl rand -base64 32)"',
            code="bad_callback_secret",
        )
    return key
