"""Routed teams, and steps whose role is looked up: who does the work, found by what roles say they can do.

All of it is pure: the same run gives the same answer again, so that a resumed one goes on with whom it had. Fields,
order of capabilities and the router's answer are kubeswarm's.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from queue_backends.messages import encode_json
from worker.teams.errors import TeamError
from worker.teams.plan import ROUTE, ROUTER, Lookup, Role, Step, Team
from worker.teams.rendering import rendered, view
from worker.teams.run_state import Phase, RunState

DEFAULT_PROMPT = """\
You decide who works on a task. These are the capabilities to choose from:
{{ range .Capabilities }}
- {{ .ID }}{{ if .Description }}: {{ .Description }}{{ end }}{{ if .Tags }} (tags:{{ range .Tags }} {{ . }}{{ end }})\
{{ end }}{{ end }}

The task's input:
{{ .Input }}

Answer with one JSON object and nothing else. "capability" is the one that fits best, spelt as above, or "" if none \
fits; "reason" is one sentence:
{"capability": "...", "reason": "..."}
"""
MOST_REASON_CHARS = 500
MOST_SHOWN_CHARS = 200


class RoutingFailed(TeamError):
    """A routed team's run finds nobody for its work, and has no fallback."""


class RegistryLookupFailed(TeamError):
    """A step's lookup finds no role, and has no fallback."""


class Choice(Struct, frozen=True, kw_only=True):
    """Who does a step, and why."""

    role: str
    capability: str = ""
    """Empty: none fitted, and the fallback does it."""
    reason: str = ""

    @property
    def meta(self) -> dict[str, str]:
        """As the step's task carries it; the names are kubeswarm's."""
        told = {"capability": self.capability, "routing_reason": self.reason}
        return {name: value for name, value in told.items() if value}


def choose(team: Team, step: Step, state: RunState) -> Choice:
    """Who does a step that names no role itself: the router's choice, or what its lookup finds.

    Raises `RoutingFailed`, `RegistryLookupFailed`; `TemplateError` for a lookup that cannot be evaluated.
    """
    if team.mode == "routed" and step.name == ROUTE:
        return route(team, state)
    return look_up(team, step, state)


def reason_of(error: TeamError) -> str:
    """In one word, why a run ends whose step finds nobody."""
    return "RoutingFailed" if isinstance(error, RoutingFailed) else "RegistryLookupFailed"


# The router


def router_prompt(team: Team, state: RunState) -> str:
    """What the router model is told: the role's own prompt, if it has one, with `.Capabilities` and `.Input`.

    Raises `TemplateError`.
    """
    role = team.role(ROUTER)
    template = role.config.system_prompt if role is not None and role.config.system_prompt.strip() else DEFAULT_PROMPT
    return rendered(template, _router_data(team, state), "routing.systemPrompt")


def router_input(state: RunState) -> str:
    """The run's input, as the router is given it."""
    return encode_json(state.input).decode()


def route(team: Team, state: RunState) -> Choice:
    """What the router's answer comes to. Raises `RoutingFailed`."""
    lookup = team.step(ROUTE).lookup or Lookup(capability="")
    if not indexed(team):
        return _routed_fallback(team, lookup, reason="no role of the team has a capability")
    answer = state.step(ROUTER)
    capability, reason, problem = _read(answer.raw_output or answer.output)
    if problem:
        return _routed_fallback(team, lookup, reason=problem)
    if not capability:
        return _routed_fallback(team, lookup, reason=f"the router chose no capability: {reason or 'no reason given'}")
    found = _resolve(team, capability, lookup, state, seed=ROUTE)
    if found is None:
        problem = f"no role has the capability {capability[:MOST_SHOWN_CHARS]!r} that the router chose"
        return _routed_fallback(team, lookup, reason=problem)
    return Choice(role=found, capability=capability, reason=reason)


def _routed_fallback(team: Team, lookup: Lookup, *, reason: str) -> Choice:
    if not lookup.fallback:
        raise RoutingFailed(f"{reason}, and no fallback is configured")
    if team.role(lookup.fallback) is None:
        raise RoutingFailed(f"{reason}, and there is no role {lookup.fallback!r}, the fallback")
    return Choice(role=lookup.fallback, reason=reason[:MOST_REASON_CHARS])


def _router_data(team: Team, state: RunState) -> dict[str, Any]:
    return {"Capabilities": indexed(team), "Input": router_input(state)}


def indexed(team: Team) -> list[dict[str, Any]]:
    """All capabilities of a team's roles, by name, as templates see them."""
    found: dict[str, dict[str, Any]] = {}
    for role in _workers(team):
        for each in role.capabilities:
            entry = found.setdefault(
                each.name, {"ID": each.name, "Name": each.name, "Description": "", "Tags": set(), "Agents": set()}
            )
            entry["Description"] = entry["Description"] or each.description
            entry["Tags"].update(each.tags)
            entry["Agents"].add(role.name)
    return [
        {**found[name], "Tags": sorted(found[name]["Tags"]), "Agents": sorted(found[name]["Agents"])}
        for name in sorted(found)
    ]


def _read(text: str) -> tuple[str, str, str]:
    """Capability, reason, and what is wrong with an answer: a model may say something around its JSON."""
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0 or end <= begin:
        return "", "", f"the router did not answer with JSON: {text[:MOST_SHOWN_CHARS]!r}"
    try:
        said = msgspec.json.decode(text[begin : end + 1])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        return "", "", f"the router's JSON cannot be read: {error}"
    said = {key.lower(): value for key, value in said.items()}  # as kubeswarm reads it
    capability, reason = said.get("capability"), said.get("reason")
    if capability is not None and not isinstance(capability, str):
        return "", "", f"the router named {str(capability)[:MOST_SHOWN_CHARS]!r} as capability, which is no text"
    return (capability or "").strip(), str(reason or "")[:MOST_REASON_CHARS], ""


# Lookups


def look_up(team: Team, step: Step, state: RunState) -> Choice:
    """What a step's `registryLookup` finds. Raises `RegistryLookupFailed`, `TemplateError`."""
    lookup = step.lookup
    if lookup is None:
        raise RegistryLookupFailed(f"step {step.name!r} names no role, and looks none up")
    data = view(team, state, step=step.name)
    capability = rendered(lookup.capability, data, f"steps.{step.name}.registryLookup.capability").strip()
    found = _resolve(team, capability, lookup, state, seed=f"{step.name}/{state.step(step.name).iteration}")
    if found is not None:
        return Choice(role=found, capability=capability)
    if lookup.fallback and team.role(lookup.fallback) is not None:
        return Choice(role=lookup.fallback, reason=f"no role has the capability {capability[:MOST_SHOWN_CHARS]!r}")
    tags = f" with the tags {', '.join(lookup.tags)}" if lookup.tags else ""
    raise RegistryLookupFailed(
        f"no role has the capability {capability[:MOST_SHOWN_CHARS]!r}{tags} that step {step.name!r} needs; there are: "
        f"{', '.join(entry['ID'] for entry in indexed(team)) or 'none'}"
    )


def _resolve(team: Team, capability: str, lookup: Lookup, state: RunState, *, seed: str) -> str | None:
    names = sorted(role.name for role in _workers(team) if _fits(role, capability, lookup.tags))
    if not names:
        return None
    match lookup.strategy:
        case "random":
            return names[_number(state.id, seed, capability) % len(names)]
        case "round-robin":
            return names[(_number(state.id, capability) + _turn(team, seed)) % len(names)]
        case "least-busy":
            busy = busy_roles(state)
            # Of those that have equally little to do each run takes another, not all of them the first.
            return min(names, key=lambda name: (busy[name], _number(state.id, seed, name)))


def busy_roles(state: RunState) -> Counter[str]:
    """Role -> how many tasks of the run it works on."""
    busy = Counter(step.role for step in state.steps if step.phase in (Phase.RUNNING, Phase.VALIDATING))
    busy.update(child.role for child in state.children if not child.phase.is_final)
    return busy


def _workers(team: Team) -> Sequence[Role]:
    return [role for role in team.roles if role.name != ROUTER]


def _fits(role: Role, capability: str, tags: Sequence[str]) -> bool:
    return any(each.name == capability and set(tags) <= set(each.tags) for each in role.capabilities)


def _turn(team: Team, seed: str) -> int:
    """Which of the team's lookups it is."""
    name, _, iteration = seed.partition("/")
    position = next((number for number, step in enumerate(team.steps) if step.name == name), 0)
    return position + (int(iteration) if iteration.isdecimal() else 0)


def _number(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).digest()[:8])
