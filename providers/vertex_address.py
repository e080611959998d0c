"""Where a model is on Vertex AI: publisher, project, location and host. Pure, but for the environment.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from urllib.parse import quote

from msgspec import Struct

from providers.credentials import base_url
from providers.errors import InvalidRequest
from providers.messages import AgentConfig

DEFAULT_LOCATION = "global"

_VERSION = "v1"
_VERSIONED = re.compile(r"/v\d+(?:(?:alpha|beta)\d*)?$")
_MULTI_REGIONS = frozenset({"us", "eu"})
_NAME = re.compile(r"[a-z0-9][a-z0-9.:-]*")


class Model(Struct, frozen=True, kw_only=True):
    """Which model is meant. `path` is its place below a project's location, or all of it from `projects/` on."""

    publisher: str
    name: str
    path: str


def read_model(model: str) -> Model:
    """`gemini-…`, `claude-…`, `publisher/name`, `publishers/…`, or an endpoint (`projects/…`) of a tuned Gemini.

    Raises `InvalidRequest` for publishers whose models speak another protocol.
    """
    if not model or ".." in model:
        raise InvalidRequest(f"{model!r} is no model's name: set the agent's `model`, such as gemini-2.5-flash")
    if model.startswith(("projects/", "endpoints/")):
        return Model(publisher="google", name=model.rpartition("/")[2], path=quote(model, safe="/"))
    parts = model.removeprefix("publishers/").replace("/models/", "/", 1).split("/", 1)
    publisher, name = parts if len(parts) == 2 else ("anthropic" if model.startswith("claude") else "google", model)
    if publisher not in ("google", "anthropic"):
        raise InvalidRequest(
            f"{model!r}: only models of google and anthropic are called here; for others, use the openai provider with "
            "Vertex AI's OpenAI-compatible address"
        )
    return Model(publisher=publisher, name=name, path=f"publishers/{publisher}/models/{quote(name, safe='@')}")


def takes_gemini() -> bool:
    """Whether agents of the provider `gemini` are meant to be served here: `GEMINI_PROJECT` and `GEMINI_LOCATION` are
    set, as for ark's agents."""
    return bool(_variable("GEMINI_PROJECT") and _variable("GEMINI_LOCATION"))


def location_of(config: AgentConfig, live: Callable[[str], str]) -> str:
    """The agent's `options.location`, else the setting's, else the environment's (`GEMINI_LOCATION` where it
    `takes_gemini`, else `GOOGLE_CLOUD_LOCATION`), else `global`.

    Raises `InvalidRequest`.
    """
    variable = "GEMINI_LOCATION" if takes_gemini() else "GOOGLE_CLOUD_LOCATION"
    chosen = str(config.options.get("location") or live("location") or _variable(variable))
    return _name("location", chosen or DEFAULT_LOCATION)


def project_of(config: AgentConfig, live: Callable[[str], str]) -> str:
    """The agent's `options.project`, else the setting's, else the environment's (`GEMINI_PROJECT` where it
    `takes_gemini`, else `GOOGLE_CLOUD_PROJECT`); empty if none is named.

    Raises `InvalidRequest`.
    """
    variable = "GEMINI_PROJECT" if takes_gemini() else "GOOGLE_CLOUD_PROJECT"
    chosen = str(config.options.get("project") or live("project") or _variable(variable))
    return _name("project", chosen) if chosen else ""


def address(config: AgentConfig, live: Callable[[str], str], location: str) -> str:
    """The address that all paths begin with, the API's version included."""
    where = base_url(config, "GOOGLE_VERTEX_BASE_URL", f"https://{_host(location)}", live=live("base_url"))
    return where if _VERSIONED.search(where) else f"{where}/{live('api_version') or _VERSION}"


def _host(location: str) -> str:
    if location == DEFAULT_LOCATION:
        return "aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"


def _name(what: str, value: str) -> str:
    # It becomes part of a host's name and of a path: a key must not go wherever a setting's typing error leads.
    if not _NAME.fullmatch(value):
        raise InvalidRequest(f"{value!r} is no Google Cloud {what}")
    return value


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()
