"""The fence that an app is: which of its models a call may go to, and what a task may not override."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import providers
from queue_backends import InvalidTask
from worker.agents.errors import OutsideApp
from worker.agents.model import Llm

if TYPE_CHECKING:
    from worker.agents.resolved import ResolvedAgent

OVERRIDABLE = frozenset(
    {
        "client_tools",
        "instructions",
        "max_run_tokens",
        "max_tokens",
        "max_turns",
        "model",
        "output_schema",
        "provider",
        "route",
        "stop",
        "system_prompt",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_p",
    }
)
"""What an engine may change for one task. Where a provider is reached, and with which key, is the worker's own.
`instructions` is added to the system prompt, which `system_prompt` replaces."""
_PLACE = ("model", "provider", "route")
_MODEL_NAME = re.compile(r"[A-Za-z0-9_~@][A-Za-z0-9_.:/@~+=,()\[\] -]{0,499}")


def place_of(llm: Llm, model: str = "") -> dict[str, Any]:
    """The fields of a configuration that say where a model's calls go. With `model`, that one is called there, and not
    whatever the route would choose."""
    return {
        "model": model or llm.model,
        "provider": llm.provider,
        "route": "" if model else llm.route,
        "base_url": llm.base_url,
        "api_key_env": llm.api_key_env,
        "options": llm.options,
    }


def chosen_llm(
    llms: Sequence[Llm], *, app: str, llm: str = "", model: str = "", provider: str = "", route: str = ""
) -> dict[str, Any]:
    """Where calls go that ask for one of an app's models by its slug, or by the name of a model, of a provider, or of a
    route; the app's first if they ask for nothing.

    Raises `OutsideApp` for what is none of them.
    """
    fitting = [each for each in llms if not llm or each.slug == llm]
    if route:
        found = next((each for each in fitting if each.route == route), None)
        if found is not None and not model and not provider:
            return place_of(found)
        raise OutsideApp(_outside(app, llms, f"route {route[:100]!r}" + (" with a model" if found else "")))
    if provider:
        fitting = [each for each in fitting if provider_of(each, model) == provider]
    if model:
        found = next((each for each in fitting if allows(each, model)), None)
        if found is not None:
            return place_of(found, model)
        found = next((each for each in fitting if each.slug == model), None)
    else:
        found = next(iter(fitting), None)
    if found is None:
        asked = {"llm": llm, "provider": provider, "model": model}
        said = " of ".join(f"{what} {name[:100]!r}" for what, name in reversed(asked.items()) if name)
        raise OutsideApp(_outside(app, llms, said or "model"))
    return place_of(found)


def allows(llm: Llm, model: str) -> bool:
    """Whether a model may be asked for by its name."""
    return model == llm.model or (
        is_model_name(model) and any(fnmatchcase(model, pattern) for pattern in llm.allowed_models)
    )


def is_model_name(text: str) -> bool:
    """Whether a text can be a model's name. Some vendors have it in their addresses, where `..` and the like would lead
    to other places than models, with the operator's key."""
    return _MODEL_NAME.fullmatch(text) is not None and ".." not in text


def provider_of(llm: Llm, model: str = "") -> str:
    """The provider that a model's calls go to, found from the model's name where it is not said."""
    return llm.provider or providers.detect(model or llm.model)


def within_app(agent: ResolvedAgent, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A task's overrides, with those that say where calls go replaced by what the app has there.

    Raises `OutsideApp`, `InvalidTask`.
    """
    asked = {name: overrides[name] for name in _PLACE if name in overrides}
    if not asked:
        return dict(overrides)
    for name, value in asked.items():
        if not isinstance(value, str):
            raise InvalidTask(f"overrides do not fit: {name} is {type(value).__name__}, it must be text")
    app = agent.app.slug if agent.app is not None else ""
    others = {name: value for name, value in overrides.items() if name not in asked}
    return {**others, **chosen_llm(agent.llms, app=app, **asked)}


def _outside(app: str, llms: Sequence[Llm], asked: str) -> str:
    there = ", ".join(
        f"{llm.slug} ({', '.join(filter(None, (llm.model, *llm.allowed_models, llm.route and f'route {llm.route}')))})"
        for llm in llms
    )
    return f"app {app!r} has no {asked}; it has: {there or 'no active model'}"
