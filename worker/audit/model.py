"""`AuditLog`: whether and where acts are written down. Names are ark's (`AGENT_AUDIT_LOG`); `webhookURLEnv` is ours."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct, field

from worker.errors import BadSetting
from worker.mid_sentence import mid_sentence

DEFAULT_MAX_DETAIL_BYTES = 8192


class AuditLog(Struct, frozen=True, kw_only=True):
    """How acts are written down."""

    mode: Literal["", "off", "actions", "verbose"] = ""
    """`verbose`: with the prompts of tasks. Empty: `off`."""
    sink: Literal["", "stdout", "redis", "webhook"] = ""
    """Empty: `stdout`."""
    max_detail_bytes: int = field(name="maxDetailBytes", default=DEFAULT_MAX_DETAIL_BYTES)
    """Of `detail.input` and `detail.output`, each; 0: no limit."""
    redact: tuple[str, ...] = ()
    """Patterns of paths such as `detail.input.password`; `*` stands for anything within one name."""
    exclude_actions: tuple[str, ...] = field(name="excludeActions", default=())
    """Acts that are not written down, such as `task.received`."""
    redis_url: str = field(name="redisURL", default="")
    """Empty: the queue's, if that is Redis."""
    webhook_url_env: str = field(name="webhookURLEnv", default="")
    """Environment variable with the address that records are posted to."""

    @property
    def is_on(self) -> bool:
        """Whether anything is written down."""
        return self.mode not in ("", "off")

    def __repr__(self) -> str:
        return f"AuditLog(mode={self.mode!r}, sink={self.sink!r})"  # the URL may hold a password


def parse_audit_log(text: str) -> AuditLog | None:
    """What `AGENT_AUDIT_LOG` says; None for `null`. Fields that are not known are left out: an operator may be newer
    than its workers.

    Raises `BadSetting` with ark's text: `invalid AGENT_AUDIT_LOG JSON: ...`.
    """
    try:
        found = msgspec.json.decode(text, type=AuditLog | None)
    except msgspec.DecodeError as error:  # ValidationError is one
        raise BadSetting(f"invalid AGENT_AUDIT_LOG JSON: {mid_sentence(str(error))}") from error
    if found is not None and found.max_detail_bytes < 0:
        raise BadSetting(f"invalid AGENT_AUDIT_LOG JSON: maxDetailBytes is {found.max_detail_bytes}: use 0 or more")
    return found
