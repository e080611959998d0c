"""What a trigger has to fit before it is stored."""

from __future__ import annotations

import math
from collections.abc import Iterable

from worker.objects.errors import BadObject
from worker.objects.field_checks import check_variable, check_words
from worker.teams.errors import TemplateError
from worker.teams.triggers.model import MOST_TARGETS, Target, Trigger
from worker.teams.triggers.schedule import schedule_of

LONGEST_DEADLINE_S = 7 * 86_400.0
_FIELDS_OF = {"cron": ("cron",), "webhook": ("token_env",), "team-output": ("watched_team",)}


def check_trigger(trigger: Trigger) -> None:
    """Raise `BadObject` for what does not fit, with the field, its value and what is allowed."""
    what = f"trigger {trigger.slug!r}"
    check_words(what, trigger.name, trigger.description)
    for kind, names in _FIELDS_OF.items():
        for name in names:
            if kind != trigger.type and getattr(trigger, name):
                raise BadObject(f"{what}: {name} is for triggers of type {kind!r}, and its type is {trigger.type!r}")
    if trigger.type == "cron":
        _check_cron(what, trigger)
    elif trigger.type == "team-output" and not trigger.watched_team:
        raise BadObject(f"{what}: watched_team is empty: name the team whose runs are watched")
    check_own_variables(what, trigger.namespace, [trigger.token_env])
    if not 1 <= len(trigger.targets) <= MOST_TARGETS:
        raise BadObject(f"{what} has {len(trigger.targets)} targets: give 1 to {MOST_TARGETS}")
    for index, target in enumerate(trigger.targets):
        _check_target(f"{what}: targets[{index}]", target)


def check_own_variables(what: str, namespace: str, names: Iterable[str]) -> None:
    """Raise `BadObject` for what is no name of an environment variable; a tenant's objects may name those of the
    gateways alone that are meant for that tenant."""
    prefix = variables_of(namespace)
    for name in filter(None, names):
        check_variable(what, name)
        if namespace and not _is_own(name, prefix):
            raise BadObject(
                f"{what}: variable {name!r} is not one of namespace {namespace!r}: its are called {prefix}<NAME>, "
                "where the name has no two underscores in a row"
            )


def _is_own(name: str, prefix: str) -> bool:
    """Of `acme`, and not of `acme-eu` or `acme--eu`, whose variables begin in the same way."""
    own = name.removeprefix(prefix)
    return name.startswith(prefix) and bool(own) and not own.startswith("_") and "__" not in own


def variables_of(namespace: str) -> str:
    """What the environment variables begin with that a tenant's objects may name."""
    return f"SHOAL_TENANT_{''.join(c if c.isalnum() else '_' for c in namespace.upper())}__"


def _check_cron(what: str, trigger: Trigger) -> None:
    if not trigger.cron:
        raise BadObject(f"{what}: cron is empty: give five fields, such as '0 9 * * 1-5', or a name such as '@daily'")
    try:
        schedule_of(trigger.cron, trigger.time_zone)
    except BadObject as error:
        raise BadObject(f"{what}: {error}") from error
    deadline_s = trigger.starting_deadline_s
    if not (math.isfinite(deadline_s) and 1 <= deadline_s <= LONGEST_DEADLINE_S):
        raise BadObject(f"{what}: starting_deadline_s is {deadline_s:g}: use 1 to {LONGEST_DEADLINE_S:g}")


def _check_target(where: str, target: Target) -> None:
    if bool(target.team) == bool(target.agent):
        raise BadObject(f"{where}: name a team or an agent, and not both")
    if target.agent and target.input:
        raise BadObject(f"{where}: input is for teams: an agent is given a prompt")
    if target.team and target.prompt:
        raise BadObject(f"{where}: prompt is for agents: a team is given input")
    if target.agent and not target.prompt.strip():
        raise BadObject(f"{where}: prompt is empty: say what agent {target.agent!r} shall do")
    for name, text in (("prompt", target.prompt), *((f"input.{key}", value) for key, value in target.input.items())):
        check_template(f"{where}.{name}", text)


def check_template(where: str, text: str) -> None:
    """Raise `BadObject` for what is no template, with line and column."""
    from worker.teams.templates import parsed  # takes a while to import, and most programs store no trigger

    try:
        parsed(text, where)
    except TemplateError as error:
        raise BadObject(str(error)) from error
