"""The API's description is valid, and says what the operations are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from openapi_spec_validator import validate

from tests.gateway.gateway_harness import GatewayServer
from worker.gateway.app import all_operations
from worker.gateway.openapi import openapi_document


def test_the_document_is_valid() -> None:
    """Code generators and validators take it."""
    validate(openapi_document(all_operations()))


def test_every_operation_is_in_it_once() -> None:
    """What is not hidden is described, under an id that no other has."""
    document = openapi_document(all_operations())
    shown = {(each.method, each.path) for each in all_operations() if not each.is_hidden}
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids)) == len(shown)


def test_no_operation_is_declared_twice() -> None:
    """Of two with the same method and path, one would never be reached."""
    declared = [(each.method, re.sub(r"\{[^}]*\}", "{}", each.path)) for each in all_operations()]
    assert sorted(declared) == sorted(set(declared))


def test_every_reference_leads_somewhere() -> None:
    """No schema is referred to that is not there."""
    document = openapi_document(all_operations())
    names = set(document["components"]["schemas"])
    assert {ref.rpartition("/")[2] for ref in _references(document)} <= names


def test_what_needs_no_key_says_so() -> None:
    """Everything else names the ways to authenticate."""
    paths = openapi_document(all_operations())["paths"]
    assert paths["/healthz"]["get"]["security"] == []
    assert {"bearer": []} in paths["/v1/keys"]["post"]["security"]
    assert "`admin`" in paths["/v1/keys"]["post"]["description"]


async def test_it_is_served_to_everybody(gateway_server: GatewayServer) -> None:
    """Document and page need no key; the page is plain HTML that loads nothing from elsewhere."""
    async with gateway_server.client(key="") as client:
        document = await client.get("/openapi.json")
        page = await client.get("/docs")
        style = await client.get("/docs/style.css")
    assert document.json()["openapi"] == "3.1.0"
    assert page.headers["content-type"].startswith("text/html")
    assert "/v1/keys" in page.text
    assert "http://" not in page.text.replace(gateway_server.url, "")
    assert style.headers["content-type"].startswith("text/css")


def _references(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for item in value.values() for found in _references(item)]
    if isinstance(value, list):
        return [found for item in value for found in _references(item)]
    return []
