"""What may be declared, as far as an object tells by itself. What it refers to: `worker.agents.references`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec

from providers import AgentConfig
from worker.agents.budget import budget_rule
from worker.agents.model import Agent, App, Group, Llm
from worker.agents.resolution import OWN_FIELDS, PLACE_FIELDS
from worker.errors import BadSetting
from worker.objects import BadObject
from worker.objects.field_checks import check_short, check_url, check_variable, check_words
from worker.objects.slug import check_slug
from worker.settings.table import BY_KEY
from worker.settings.values import check as check_value

MOST_LISTED = 1000
_MOST_PATTERN_CHARS = 200


def check_llm(llm: Llm) -> None:
    """Raise `BadObject` for a model that cannot be called as it is declared."""
    check_words("llm", llm.name, llm.description)
    if not (llm.model or llm.route):
        raise BadObject(f"llm {llm.slug!r}: give the model's name as its provider has it, or a route")
    for field in ("model", "provider", "route"):
        check_short(f"llm {llm.slug!r}: {field}", getattr(llm, field))
    _check_patterns(f"llm {llm.slug!r}: allowed_models", llm.allowed_models)
    check_variable(f"llm {llm.slug!r}: api_key_env", llm.api_key_env)
    check_url(f"llm {llm.slug!r}: base_url", llm.base_url)
    if llm.privacy_score < 0:
        raise BadObject(f"llm {llm.slug!r}: privacy_score is {llm.privacy_score}: use 0 or more")


def check_app(app: App) -> None:
    """Raise `BadObject` for an app with lists that cannot be."""
    check_words("app", app.name, app.description)
    _check_slugs(f"app {app.slug!r}: llms", app.llms)
    _check_slugs(f"app {app.slug!r}: datasources", app.datasources)
    _check_patterns(f"app {app.slug!r}: tools", app.tools)


def check_group(group: Group) -> None:
    """Raise `BadObject` for words that are too long."""
    check_words("group", group.name, group.description)


def check_agent(agent: Agent) -> None:
    """Raise `BadObject` for an agent that contradicts itself."""
    what = f"agent {agent.slug!r}"
    check_words("agent", agent.name, agent.description)
    for field in ("provider", "model", "route"):
        check_short(f"{what}: {field}", getattr(agent, field))
    for field in ("app", "llm"):
        if value := getattr(agent, field):
            check_slug(f"{what}: {field}", value)
    if agent.route and (agent.model or agent.provider):
        raise BadObject(f"{what}: give a route, or a model with its provider, not both")
    if agent.provider and not agent.model and not agent.app:
        raise BadObject(f"{what}: provider {agent.provider!r} is given without a model: give both, or the model alone")
    if agent.llm and not agent.app:
        raise BadObject(f"{what}: llm {agent.llm!r} is one of an app's models: give the app, too")
    _check_patterns(f"{what}: tools", agent.tools or ())
    _check_slugs(f"{what}: datasources", agent.datasources or ())
    _check_slugs(f"{what}: groups", agent.groups)
    if agent.config and not agent.plugin:
        raise BadObject(f"{what}: config is a plugin's, and no plugin is given; a model's settings go into settings")
    if agent.memory.max_tokens < 1 or agent.memory.max_messages < 1:
        raise BadObject(f"{what}: memory: max_tokens and max_messages are 1 or more")
    check_settings(what, agent.settings, has_app=bool(agent.app))
    try:
        budget_rule(agent)
    except BadSetting as error:
        raise BadObject(f"{what}: {error}") from error


def check_settings(what: str, settings: dict[str, Any], *, has_app: bool) -> None:
    """Raise `BadObject` for settings that are no fields of `AgentConfig`, do not fit, or are given elsewhere."""
    for name, value in settings.items():
        if name in OWN_FIELDS:
            raise BadObject(f"{what}: settings.{name}: that is a field of the agent itself: move it out of settings")
        if has_app and name in PLACE_FIELDS:
            raise BadObject(f"{what}: settings.{name}: an app's agent has that of its app's models: set it at the llm")
        if name not in AgentConfig.__struct_fields__:
            near = get_close_matches(name, AgentConfig.__struct_fields__, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_known_settings(has_app))}"
            raise BadObject(f"{what}: settings.{name} is not known: {hint}")
        setting = BY_KEY.get(f"agent.{name}")
        try:
            if setting is not None and value is not None:
                check_value(setting, f"settings.{name}", value)
        except BadSetting as error:
            raise BadObject(f"{what}: {error}") from error
    if variable := settings.get("api_key_env"):
        check_variable(f"{what}: settings.api_key_env", variable)
    if base_url := settings.get("base_url"):
        check_url(f"{what}: settings.base_url", base_url)
    try:
        msgspec.convert({"model": "", **settings}, AgentConfig)
    except msgspec.ValidationError as error:
        raise BadObject(f"{what}: settings do not fit: {error}") from error


def _known_settings(has_app: bool) -> Iterable[str]:
    return sorted(set(AgentConfig.__struct_fields__) - OWN_FIELDS - (PLACE_FIELDS if has_app else set()))


def _check_slugs(where: str, slugs: Sequence[str]) -> None:
    if len(slugs) > MOST_LISTED:
        raise BadObject(f"{where}: {len(slugs)} are too many, at most {MOST_LISTED} are allowed")
    for slug in slugs:
        check_slug(where, slug)
    if len(set(slugs)) < len(slugs):
        twice = next(slug for slug in slugs if slugs.count(slug) > 1)
        raise BadObject(f"{where}: {twice!r} is there twice")


def _check_patterns(where: str, patterns: Sequence[str]) -> None:
    if len(patterns) > MOST_LISTED:
        raise BadObject(f"{where}: {len(patterns)} are too many, at most {MOST_LISTED} are allowed")
    for pattern in patterns:
        if not pattern or len(pattern) > _MOST_PATTERN_CHARS or not pattern.isprintable():
            raise BadObject(
                f"{where}: {pattern[:_MOST_PATTERN_CHARS]!r}: use names or patterns such as 'search__*', of at most "
                f"{_MOST_PATTERN_CHARS} printable characters"
            )
