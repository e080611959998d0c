"""Which live settings there are, what each may be, and which are secret: asked before anything is stored.

- `plugin.<provider>.<key>`: as the provider's `describe()` says.
- `llm.default_provider`: a provider's name.
- `routes.`, `limits.`, `budgets.` and others: what the part of the worker that reads them has registered.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Awaitable, Callable

from msgspec import Struct

from providers import ConfigParam, ProviderError
from providers.live_config import check_value
from queue_backends import StateStore
from worker.errors import BadSetting
from worker.provider_params import known_providers, params_of

LONGEST_KEY = 200
MOST_BYTES = 65_536
PLUGIN = "plugin."
DEFAULT_PROVIDER = "llm.default_provider"

Check = Callable[[str, str], Awaitable[None] | None]
"""Takes a whole key and its value; raises `BadSetting`, whose text need not repeat the key."""

_KEY = re.compile(r"[a-z][a-z0-9_]*(\.[A-Za-z0-9_:@/*-]+)+")
_SOUNDS_SECRET = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)

_HOMES = {
    "routes.": "worker.routing",
    "limits.": "worker.rate_limits.live",
    "budgets.": "worker.budgets.live",
}
"""Prefix -> the module that registers its rule when it is imported."""


class KeyRule(Struct, frozen=True, kw_only=True):
    """What all keys under one prefix have in common."""

    prefix: str
    check: Check
    is_secret: Callable[[str], bool]


_rules: dict[str, KeyRule] = {}


def register_key(prefix: str, check: Check, is_secret: Callable[[str], bool] = lambda _key: False) -> None:
    """Allow live settings whose key begins with `prefix` (`routes.`); `check` raises `BadSetting` for a value that does
    not fit. Call it where the module that reads them is imported. The last registration of a prefix wins."""
    _rules[prefix] = KeyRule(prefix=prefix, check=check, is_secret=is_secret)


async def check_key(state: StateStore, key: str, value: str) -> None:
    """Raise `BadSetting` if there is no such setting, or `value` is none for it. `state` knows the remote providers."""
    _check_form(key, value)
    if key == DEFAULT_PROVIDER:
        await _check_default_provider(state, value)
    elif key.startswith(PLUGIN):
        await _check_plugin(state, key, value)
    else:
        await _check_by_rule(key, value)


async def is_secret(state: StateStore, key: str) -> bool:
    """Whether the value of this setting is a secret: never shown, and sealed at rest."""
    if not key.startswith(PLUGIN):
        rule = _rule_of(key)
        return rule is not None and rule.is_secret(key)
    name, _, param = key.removeprefix(PLUGIN).partition(".")
    params = await params_of(state, name)
    if params is None:  # a provider that is not there at present: rather too careful
        return _SOUNDS_SECRET.search(param) is not None
    return any(each.secret for each in params if each.key == param)


def _check_form(key: str, value: str) -> None:
    if len(key) > LONGEST_KEY or not _KEY.fullmatch(key):
        raise BadSetting(
            f"{key[:LONGEST_KEY]!r} is no setting's name: names are like plugin.openai.base_url, in letters, digits, "
            f"_ and -, at most {LONGEST_KEY} characters"
        )
    if (size := len(value.encode())) > MOST_BYTES:
        raise BadSetting(f"{key}: the value has {size} bytes, at most {MOST_BYTES} are allowed")


async def _check_default_provider(state: StateStore, value: str) -> None:
    names = await known_providers(state)
    if value not in names:
        raise BadSetting(f"{DEFAULT_PROVIDER}: no provider {value!r} is registered; there are: {', '.join(names)}")


async def _check_plugin(state: StateStore, key: str, value: str) -> None:
    name, _, setting = key.removeprefix(PLUGIN).partition(".")
    params = await params_of(state, name)
    if params is None:
        names = ", ".join(await known_providers(state))
        raise BadSetting(f"{key}: no provider {name!r} is registered; there are: {names}")
    param = _param(key, setting, params)
    try:
        check_value(param, value)
    except ProviderError as error:
        raise BadSetting(f"{PLUGIN}{name}.{error}") from error


def _param(key: str, setting: str, params: tuple[ConfigParam, ...]) -> ConfigParam:
    for param in params:
        if param.key == setting:
            return param
    known = ", ".join(param.key for param in params) or "none"
    raise BadSetting(f"{key}: this provider has no setting {setting!r}; it has: {known}")


async def _check_by_rule(key: str, value: str) -> None:
    rule = _rule_of(key)
    if rule is None:
        prefixes = ", ".join(f"{prefix}…" for prefix in sorted({PLUGIN, *_HOMES, *_rules}))
        raise BadSetting(f"there is no setting {key!r}; there are {DEFAULT_PROVIDER}, {prefixes}")
    try:
        checked = rule.check(key, value)
        if inspect.isawaitable(checked):
            await checked
    except BadSetting as error:
        text = str(error)
        raise BadSetting(text if key in text else f"{key}: {text}") from error


def _rule_of(key: str) -> KeyRule | None:
    for prefix, module in _HOMES.items():
        if key.startswith(prefix) and prefix not in _rules:
            importlib.import_module(module)
    fitting = [rule for prefix, rule in _rules.items() if key.startswith(prefix)]
    return max(fitting, key=lambda rule: len(rule.prefix), default=None)
