"""`GET /v1/models`: the agents that the caller may use, in OpenAI's form, or in Anthropic's if its client asks."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct

from queue_backends.messages import JsonObject
from worker.agents.model import Agent
from worker.gateway.ingress.submission import agent_as_model
from worker.gateway.operation import Call
from worker.gateway.problem import Problem
from worker.objects import Stored

ANTHROPIC_HEADER = "anthropic-version"
MOST_MODELS = 1000


class ModelsQuery(Struct, frozen=True, kw_only=True):
    """Anthropic's pages; OpenAI has none."""

    limit: int = 20
    after_id: str = ""
    before_id: str = ""


async def list_models(call: Call) -> JsonObject:
    """All agents that the caller may use, the newest first; the environment's own agent among them."""
    agents = list(call.gateway.roster.visible_to(call.caller))
    if ANTHROPIC_HEADER in call.request.headers:
        return _page(agents, call.query)
    return {"object": "list", "data": [_openai(agent) for agent in agents]}


async def get_model(call: Call) -> JsonObject:
    """One of them."""
    found = agent_as_model(call, call.path["id"])
    return _anthropic(found) if ANTHROPIC_HEADER in call.request.headers else _openai(found)


def _openai(stored: Stored[Agent]) -> JsonObject:
    agent = stored.value
    return {
        "id": agent.slug,
        "object": "model",
        "created": int(stored.created_at),
        "owned_by": agent.namespace or "shoal",
        "name": agent.title,
        "description": agent.description,
    }


def _anthropic(stored: Stored[Agent]) -> JsonObject:
    agent = stored.value
    created_at = datetime.fromtimestamp(stored.created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "model",
        "id": agent.slug,
        "display_name": agent.title,
        "created_at": created_at,
        "lifecycle": "active",
    }


def _page(agents: list[Stored[Agent]], query: ModelsQuery) -> JsonObject:
    if not 1 <= query.limit <= MOST_MODELS:
        raise Problem(400, f"limit: {query.limit} is not allowed: give 1 to {MOST_MODELS}", code="invalid_request")
    slugs = [agent.value.slug for agent in agents]
    for name, given in (("after_id", query.after_id), ("before_id", query.before_id)):
        if given and given not in slugs:
            raise Problem(400, f"{name}: there is no model {given[:100]!r}", code="invalid_request")
    begin = slugs.index(query.after_id) + 1 if query.after_id else 0
    end = slugs.index(query.before_id) if query.before_id else len(slugs)
    if query.before_id and not query.after_id:
        begin = max(0, end - query.limit)
    page = agents[begin:end][: query.limit]
    more = begin > 0 if query.before_id and not query.after_id else begin + len(page) < end
    return {
        "data": [_anthropic(agent) for agent in page],
        "first_id": page[0].value.slug if page else None,
        "last_id": page[-1].value.slug if page else None,
        "has_more": more,
    }
