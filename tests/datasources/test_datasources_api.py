"""Data sources over HTTP, and who may do what with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from worker.agents import Agent, App
from worker.datasources.model import Datasource
from worker.gateway.caller import Scope
from worker.gateway.context import Gateway

PAGES = [
    {"id": "docs/pumps", "text": "# Pumps\n\nPumps move water.", "metadata": {"lang": "en"}},
    {"id": "docs/valves", "text": "<h1>Valves</h1><p>Valves shut pipes.", "format": "html"},
]


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayServer]:
    """A gateway with one open data source, one that an app has, and one of a tenant."""
    with GatewayServer(gateway_settings(), with_worker=False) as server:

        async def declare(there: Gateway) -> None:
            known = there.definitions
            for slug, namespace in (("machines", ""), ("fenced", ""), ("secret", ""), ("own", "acme")):
                await known.datasources.create(Datasource(slug=slug, namespace=namespace, embed_model="lexical"))
            await known.apps.create(App(slug="shop", datasources=("fenced",)))
            await known.agents.create(Agent(slug="helper", datasources=("machines",)))

        server.do(declare)
        yield server


async def test_texts_are_taken_in_and_asked(gateway: GatewayServer) -> None:
    """Documents go in, are listed in pages, found, and go."""
    async with gateway.client() as client:
        done = await client.post("/v1/datasources/machines/documents", json={"documents": PAGES})
        assert (done.status_code, done.json()["added"]) == (200, 2)
        again = await client.post("/v1/datasources/machines/documents", json={"documents": PAGES})
        assert again.json()["unchanged"] == 2

        asked = await client.post("/v1/datasources/machines/query", json={"query": "what moves water?"})
        best = asked.json()["passages"][0]
        assert best["content"] == "Pumps move water."
        assert best["metadata"]["document"] == "docs/pumps"
        chosen = await client.post(
            "/v1/datasources/machines/query", json={"query": "water", "filter": {"metadata": {"lang": "en"}}}
        )
        assert [each["metadata"]["document"] for each in chosen.json()["passages"]] == ["docs/pumps"]

        page = (await client.get("/v1/datasources/machines/documents", params={"limit": 1})).json()
        assert [each["id"] for each in page["items"]] == ["docs/pumps"]
        assert page["size"]["documents"] == 2
        rest = (await client.get("/v1/datasources/machines/documents", params={"after": page["next"]})).json()
        assert [(each["id"], each["title"]) for each in rest["items"]] == [("docs/valves", "Valves")]
        assert rest["next"] == ""

        assert (await client.delete("/v1/datasources/machines/documents/docs/valves")).status_code == 204
        gone = await client.delete("/v1/datasources/machines/documents/docs/valves")
        assert (gone.status_code, gone.json()["code"]) == (404, "document_not_found")


async def test_one_is_declared_changed_and_deleted(gateway: GatewayServer) -> None:
    """As agents and apps are; its passages go with it."""
    async with gateway.client() as client:
        made = await client.post("/v1/datasources", json={"slug": "notes", "embed_model": "lexical"})
        assert made.status_code == 201
        await client.post("/v1/datasources/notes/documents", json={"documents": PAGES})
        changed = await client.patch("/v1/datasources/notes", json={"description": "Notes."})
        assert changed.json()["definition"]["description"] == "Notes."
        assert (await client.delete("/v1/datasources/notes")).status_code == 204
        assert (await client.post("/v1/datasources/notes/query", json={"query": "x"})).status_code == 404
        await client.post("/v1/datasources", json={"slug": "notes", "embed_model": "lexical"})
        assert (await client.get("/v1/datasources/notes/documents")).json()["items"] == []
        assert (await client.delete("/v1/datasources/notes")).status_code == 204


USER, ADMIN = (Scope.AGENTS_USE,), (Scope.ADMIN,)


@pytest.mark.parametrize(
    ("key", "slug", "status"),
    [
        ({"scopes": USER}, "machines", 200),
        ({"scopes": USER}, "secret", 404),
        ({"scopes": USER, "app": "shop"}, "fenced", 200),
        ({"scopes": USER, "app": "shop"}, "secret", 404),
        ({"scopes": ADMIN, "app": "shop"}, "secret", 404),
        ({"scopes": ADMIN, "tenant": "acme"}, "own", 200),
        ({"scopes": ADMIN, "tenant": "other"}, "own", 404),
        ({"scopes": (Scope.TASKS_READ,)}, "machines", 403),
        ({"scopes": ADMIN}, "nothing", 404),
    ],
)
async def test_who_may_ask(gateway: GatewayServer, key: dict[str, Any], slug: str, status: int) -> None:
    """Whoever may use an agent or app may ask what it searches; nobody else learns that it exists."""
    async with gateway.client(gateway.make_key(**key)) as client:
        asked = await client.post(f"/v1/datasources/{slug}/query", json={"query": "water"})
        assert asked.status_code == status, asked.text


@pytest.mark.parametrize(
    ("key", "slug", "status"),
    [
        ({"scopes": USER}, "machines", 403),
        ({"scopes": ADMIN, "app": "shop"}, "fenced", 403),
        ({"scopes": ADMIN, "tenant": "acme"}, "own", 200),
        ({"scopes": ADMIN, "tenant": "acme"}, "machines", 403),
        ({"scopes": ADMIN, "tenant": "other"}, "own", 404),
        ({"scopes": ADMIN}, "machines", 200),
    ],
)
async def test_who_may_fill(gateway: GatewayServer, key: dict[str, Any], slug: str, status: int) -> None:
    """Administrators, each what is theirs: texts in, listed, and out."""
    async with gateway.client(gateway.make_key(**key)) as client:
        body = {"documents": [{"id": "x", "text": "x"}]}
        path = f"/v1/datasources/{slug}/documents"
        assert (await client.post(path, json=body)).status_code == status
        assert (await client.get(path)).status_code == status
        assert (await client.delete(f"{path}/x")).status_code == (204 if status == 200 else status)


async def test_a_tenant_declares_none(gateway: GatewayServer) -> None:
    """One says which key and which database are used: that is for administrators of the whole fleet."""
    async with gateway.client(gateway.make_key(scopes=ADMIN, tenant="acme")) as client:
        made = await client.post(
            "/v1/datasources",
            json={"slug": "mine", "embed_api_key_env": "OPENAI_API_KEY", "embed_base_url": "http://x"},
        )
        assert made.status_code == 403
        listed = (await client.get("/v1/datasources")).json()
        assert "definition" not in next(each for each in listed["items"] if each["slug"] == "machines")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("query", {"query": ""}, 400),
        ("query", {"query": "   "}, 422),
        ("query", {"query": "x", "max_results": 101}, 400),
        ("query", {"query": "x", "more": 1}, 400),
        ("documents", {"documents": []}, 400),
        ("documents", {"documents": [{"id": "", "text": "x"}]}, 400),
        ("documents", {"documents": [{"id": "x\u0000", "text": "x"}]}, 422),
    ],
)
async def test_requests_that_do_not_fit(gateway: GatewayServer, path: str, body: dict[str, Any], status: int) -> None:
    """They are problems of the caller, and say so."""
    async with gateway.client() as client:
        answer = await client.post(f"/v1/datasources/machines/{path}", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
