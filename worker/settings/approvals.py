"""How people are asked for their approval, where a team's file does not say so itself."""

from __future__ import annotations

import base64
import binascii
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

from worker.errors import BadSetting

_PREFIX = "whsec_"
"""Of secrets in the format of Standard Webhooks."""
_FEWEST_BYTES = 24
_MOST_BYTES = 64


class ApprovalSettings(Struct, frozen=True, kw_only=True):
    """Of tools whose calls have to be approved, and of steps without settings of their own."""

    timeout_s: float = 86_400.0
    """Then the fallback decides."""
    fallback: Literal["reject", "approve"] = "reject"
    webhook: str = ""
    """URL that is told of each question; empty: none."""
    webhook_secret: str = ""
    """Signs what is sent there, in the format of Standard Webhooks; empty: it is not signed."""

    def check(self) -> None:
        """Raise `BadSetting` for what cannot work; the message shows no secret."""
        if self.webhook and urlsplit(self.webhook).scheme not in ("http", "https"):
            raise BadSetting("approval.webhook (SHOAL_APPROVAL_WEBHOOK) is no URL: use https://host/path")
        if not self.webhook_secret:
            return
        try:
            key = base64.b64decode(self.webhook_secret.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not self.webhook_secret.startswith(_PREFIX) or not _FEWEST_BYTES <= len(key) <= _MOST_BYTES:
            raise BadSetting(
                f"approval.webhook_secret (SHOAL_APPROVAL_WEBHOOK_SECRET) must be {_PREFIX!r} and base64 of "
                f'{_FEWEST_BYTES} to {_MOST_BYTES} bytes, as from: echo "{_PREFIX}$(openssl rand -base64 32)"'
            )

    def __repr__(self) -> str:
        return f"ApprovalSettings(timeout_s={self.timeout_s:g}, fallback={self.fallback!r})"
