"""How fast models may be called: limits as operators write them, and which calls each of them is about."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from worker.credential_name import credential_name
from worker.errors import BadSetting

if TYPE_CHECKING:
    from worker.call_gates import ModelCallIntent

REQUESTS = "requests"
TOKENS = "tokens"
INPUT_TOKENS = "input_tokens"
OUTPUT_TOKENS = "output_tokens"
KINDS = (REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS)
"""What is counted per minute."""
ANY = ""
"""The account of a limit that keeps one for all calls."""

_PARTS = ("key", "provider", "model", "route", "agent", "tenant", "team")
_OWN_PARTS = frozenset({"agent", "tenant", "team"})
_MOST_LIMITS = 1000
_LONGEST_NAME_CHARS = 100
_LONGEST_ACCOUNT_CHARS = 200
_FORM = '{"where": {"provider": "anthropic"}, "requests_per_min": 4000}'


class RateLimit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One limit: so much per minute, and so many calls at once, for each account that it keeps."""

    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    """Input and output together."""
    input_tokens_per_min: float | None = None
    output_tokens_per_min: float | None = None
    concurrent: int | None = None
    """Calls under way at the same time, in the whole fleet."""
    where: dict[str, str] = {}
    """Patterns: it is only about calls whose key, provider, model, route, agent, tenant or team fit. Empty: all."""
    per: tuple[str, ...] = ("key",)
    """What has an account of its own: each key, or each of the other things of `where`, or each combination of several.
    Empty: one account for all."""
    learn: bool = True
    """Whether what the vendor tells of its limits counts too; never more than what is set here."""
    burst_s: float = 6.0
    """What an idle account gathers: what may be used in so many seconds, may be used at once."""
    wait_s: float | None = None
    """A call waits so long in its task's slot; then the task gives the slot back. None: the worker's own setting."""
    weights: dict[str, float] = {}
    """Tenant -> its share when several want more than there is. Others have 1."""
    cached_input_counts: bool | None = None
    """Whether input that came from the vendor's cache uses up the limit. None: as the vendor has it."""
    name: str = ""

    @property
    def is_vendors(self) -> bool:
        """Whether its accounts are like the vendor's own: then they hear what the vendor says. An account of a tenant,
        agent or team is only a part of one."""
        return not _OWN_PARTS.intersection(self.per)

    def rate(self, kind: str) -> float | None:
        """What is set for one of `KINDS`, per minute."""
        rate: float | None = getattr(self, f"{kind}_per_min")
        return rate


Limits = Mapping[str, RateLimit]


def read_limit(name: str, value: Any) -> RateLimit:
    """A limit from plain values, as in `shoal.yaml` or the JSON of a live setting.

    Raises `BadSetting`: one line with the name, what is wrong and what is allowed.
    """
    at = f"limits.{name}"
    if not name.strip() or len(name) > _LONGEST_NAME_CHARS or "/" in name:
        raise BadSetting(f"{at}: a limit needs a name of 1 to {_LONGEST_NAME_CHARS} characters, without a slash")
    if isinstance(value, Mapping) and isinstance(value.get("per"), str):
        value = {**value, "per": [value["per"]]}
    try:
        limit = msgspec.convert(value, RateLimit, strict=False)
    except msgspec.ValidationError as error:
        raise BadSetting(f"{at}: {error}; it looks like {_FORM}") from error
    for field in (*(f"{kind}_per_min" for kind in KINDS), "concurrent"):
        number = getattr(limit, field)
        if number is not None and not 0 < number < 1e12:
            raise BadSetting(f"{at}.{field}: {number:g} is no limit: use more than 0; to stop calls, pause the queue")
    if not 0 < limit.burst_s <= 60:
        raise BadSetting(f"{at}.burst_s: {limit.burst_s:g}: use more than 0, at most 60 seconds")
    if limit.wait_s is not None and not 0 <= limit.wait_s <= 600:
        raise BadSetting(f"{at}.wait_s: {limit.wait_s:g}: use 0 to 600 seconds")
    if any(not 0 < weight <= 1e6 for weight in limit.weights.values()):
        raise BadSetting(f"{at}.weights: a tenant's weight is more than 0")
    for field, named in (("where", limit.where), ("per", limit.per)):
        if unknown := sorted(set(named) - set(_PARTS)):
            raise BadSetting(f"{at}.{field}: {', '.join(unknown)} is not known; there are {', '.join(_PARTS)}")
    if not limit.learn and limit.concurrent is None and all(limit.rate(kind) is None for kind in KINDS):
        raise BadSetting(f"{at}: no limit is given: set requests_per_min or another, or learn: true")
    return msgspec.structs.replace(limit, name=name)


def read_limits(values: Any) -> dict[str, RateLimit]:
    """All limits of a `limits:` section. Raises `BadSetting`."""
    if not isinstance(values, Mapping):
        raise BadSetting(f"limits: expected names and limits such as {_FORM}, got {type(values).__name__}")
    if len(values) > _MOST_LIMITS:
        raise BadSetting(f"limits: {len(values)} are too many, at most {_MOST_LIMITS} are allowed")
    return {str(name): read_limit(str(name), value) for name, value in values.items()}


def account_of(limit: RateLimit, intent: ModelCallIntent) -> str | None:
    """The account of this limit that a call belongs to; None if the limit is not about it."""
    parts = _parts(intent)
    if not all(fnmatchcase(parts[part], pattern) for part, pattern in limit.where.items()):
        return None
    return " ".join(parts[part] or "-" for part in limit.per)[:_LONGEST_ACCOUNT_CHARS]


def _parts(intent: ModelCallIntent) -> dict[str, str]:
    config, task = intent.config, intent.task
    return {
        "key": credential_name(intent.provider, config),
        "provider": intent.provider,
        "model": config.model,
        "route": getattr(config, "route", ""),
        "agent": config.name or task.agent,
        "tenant": task.tenant,
        "team": intent.team,
    }
