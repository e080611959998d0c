"""What may be spent: rules as operators write them, and which calls each of them is about."""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from worker.credential_name import credential_name
from worker.errors import BadSetting

if TYPE_CHECKING:
    from worker.call_gates import ModelCallIntent

DEFAULT_SOFT_SHARE = 0.8
TEAM_PREFIX = "team/"
"""Names of budgets that teams and roles bring along begin so (`worker.teams.team_budgets`)."""
_MOST_RULES = 1000
_LONGEST_NAME_CHARS = 100
LONGEST_ACCOUNT_CHARS = 200


class Scope(enum.StrEnum):
    """Whose spending is added up. Each task, session, … that a rule is about has an account of its own."""

    TASK = "task"
    SESSION = "session"
    AGENT = "agent"
    TEAM = "team"
    TENANT = "tenant"
    KEY = "key"
    """An API key, by its name (`anthropic:ANTHROPIC_API_KEY`)."""
    FLEET = "fleet"
    """Everything together, in one account."""


class Period(enum.StrEnum):
    """Over which time."""

    DAY = "day"
    """Any 24 hours, to within five minutes."""
    MONTH = "month"
    """A calendar month in UTC."""
    EVER = "ever"


class BudgetRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One budget: at most so many tokens, or so many US dollars, for each account of a scope."""

    scope: Scope
    period: Period = Period.EVER
    tokens: int | None = None
    """Input plus output tokens."""
    usd: float | None = None
    """US dollars. Calls whose price is not known cost nothing here."""
    soft: float = DEFAULT_SOFT_SHARE
    """From this share of the limit on it warns, once per account and period."""
    hard: bool = True
    """Whether calls beyond the limit are refused; if not, it only warns, at `soft` and at the limit itself."""
    match: str = "*"
    """Pattern of the accounts' names that it is about, such as a tenant's: `acme*`."""
    where: dict[str, str] = {}
    """Further patterns: it is only about calls whose agent, tenant, team, key, provider or model fit."""
    except_tenants: tuple[str, ...] = ()
    """It is not about calls of these tenants."""
    name: str = ""


Rules = Mapping[str, BudgetRule]

_WHERE = ("agent", "tenant", "team", "key", "provider", "model")
_FORM = '{"scope": "tenant", "period": "month", "usd": 100}'


def read_rule(name: str, value: Any) -> BudgetRule:
    """A rule from plain values, as in `shoal.yaml` or the JSON of a live setting.

    Raises `BadSetting`: one line with the name, what is wrong and what is allowed.
    """
    where = f"budgets.{name}"
    if not name.strip() or len(name) > _LONGEST_NAME_CHARS or ":" in name:
        raise BadSetting(f"{where}: a budget needs a name of 1 to {_LONGEST_NAME_CHARS} characters without a colon")
    try:
        rule = msgspec.convert(value, BudgetRule, strict=False)
    except msgspec.ValidationError as error:
        raise BadSetting(f"{where}: {error}; it looks like {_FORM}") from error
    if rule.tokens is None and rule.usd is None:
        raise BadSetting(f"{where}: no limit is given: set tokens, or usd, or both")
    if (rule.tokens is not None and rule.tokens < 1) or (rule.usd is not None and not 0 < rule.usd < math.inf):
        raise BadSetting(f"{where}: a limit is more than 0; to stop an agent, pause its queue")
    if not 0 < rule.soft <= 1:
        raise BadSetting(f"{where}.soft: {rule.soft:g} is no share: use more than 0 and at most 1")
    if unknown := sorted(set(rule.where) - set(_WHERE)):
        raise BadSetting(f"{where}.where: {', '.join(unknown)} is not known; there are {', '.join(_WHERE)}")
    return msgspec.structs.replace(rule, name=name)


def read_rules(values: Any) -> dict[str, BudgetRule]:
    """All rules of a `budgets:` section. Raises `BadSetting`."""
    if not isinstance(values, Mapping):
        raise BadSetting(f"budgets: expected names and rules such as {_FORM}, got {type(values).__name__}")
    if len(values) > _MOST_RULES:
        raise BadSetting(f"budgets: {len(values)} rules are too many, at most {_MOST_RULES} are allowed")
    return {str(name): read_rule(str(name), value) for name, value in values.items()}


def account_of(rule: BudgetRule, intent: ModelCallIntent) -> str | None:
    """The account of this rule that a call is charged to; None if the rule is not about it."""
    names = _names(intent)
    account = names[rule.scope.value]
    if not account or not fnmatchcase(account, rule.match) or intent.task.tenant in rule.except_tenants:
        return None
    if not all(fnmatchcase(names[kind], pattern) for kind, pattern in rule.where.items()):
        return None
    return account if len(account) <= LONGEST_ACCOUNT_CHARS else _shortened(account)


def _shortened(account: str) -> str:
    """Names that only differ far behind stay different."""
    digest = hashlib.sha256(account.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{account[: LONGEST_ACCOUNT_CHARS - 17]}…{digest}"


def _names(intent: ModelCallIntent) -> dict[str, str]:
    task = intent.task
    return {
        "task": task.id,
        "session": task.session_id,
        "agent": intent.config.name or task.agent,
        "team": intent.team,
        "tenant": task.tenant,
        "key": credential_name(intent.provider, intent.config),
        "fleet": "fleet",
        "provider": intent.provider,
        "model": intent.config.model,
    }
