"""Agents as models, and embeddings, with OpenAI's own client."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from queue_backends import UsageRecord
from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from tests.gateway.vendor_clients import AGENTS, openai_client
from worker.agents.model import Agent, App, Group, Llm
from worker.gateway.caller import Scope
from worker.gateway.context import Gateway
from worker.settings import Settings
from worker.usage import UsageReport


@pytest.fixture(scope="module")
def gateway_config() -> Settings:
    """A gateway with the scripted agents of the settings."""
    return gateway_settings(agents=AGENTS)


@pytest.fixture(scope="module", autouse=True)
def _declared(gateway_server: GatewayServer) -> None:
    """Agents of a group, of an app and of a tenant, and models for their texts."""

    async def declare(gateway: Gateway) -> None:
        definitions = gateway.definitions
        await definitions.groups.create(Group(slug="insiders"))
        await definitions.llms.create(Llm(slug="vectors", provider="scripted", model="mock-embedding"))
        await definitions.llms.create(Llm(slug="other-vectors", provider="scripted", model="mock-embedding"))
        await definitions.apps.create(App(slug="shop", llms=("vectors",)))
        await definitions.agents.create(Agent(slug="for-all", name="For all", model="mock", provider="scripted"))
        await definitions.agents.create(Agent(slug="for-some", model="mock", provider="scripted", groups=("insiders",)))
        await definitions.agents.create(Agent(slug="of-shop", app="shop"))
        await definitions.agents.create(Agent(slug="of-acme", namespace="acme", model="mock", provider="scripted"))
        await definitions.agents.create(Agent(slug="asleep", model="mock", provider="scripted", is_active=False))

    gateway_server.do(declare)


@pytest.fixture
def client(gateway_server: GatewayServer) -> Iterator[Any]:
    """The official client, with a key that may do everything."""
    with openai_client(gateway_server) as made:
        yield made


def listed(server: GatewayServer, key: str) -> set[str]:
    """The models that a key sees."""
    with openai_client(server, api_key=key) as client:
        return {model.id for model in client.models.list()}


def test_models_are_the_agents_that_a_caller_may_use(gateway_server: GatewayServer) -> None:
    """The environment's own agent is among them; groups, apps, tenants and inactive agents make the difference."""
    use = [Scope.AGENTS_USE]
    everybody = listed(gateway_server, gateway_server.make_key(use))
    assert {"default", "talker", "for-all"} <= everybody
    assert not {"for-some", "asleep"} & everybody
    assert "for-some" in listed(gateway_server, gateway_server.make_key(use, groups=["insiders"]))
    assert listed(gateway_server, gateway_server.make_key(use, app="shop")) == {"of-shop"}
    assert "of-acme" in listed(gateway_server, gateway_server.make_key(use, tenant="acme"))
    assert "of-acme" not in listed(gateway_server, gateway_server.make_key(use, tenant="umbrella"))


def test_one_model(gateway_server: GatewayServer, client: Any) -> None:
    """An agent can be looked up; what the caller must not use is not there."""
    assert client.models.retrieve("for-all").id == "for-all"
    for name in ("nobody", "for-some"):
        with openai_client(gateway_server, api_key=gateway_server.make_key([Scope.AGENTS_USE])) as outsider:
            with pytest.raises(openai.NotFoundError):
                outsider.models.retrieve(name)
            with pytest.raises(openai.NotFoundError):
                outsider.chat.completions.create(model=name, messages=[{"role": "user", "content": "x"}])


def test_declared_agent_answers(client: Any) -> None:
    """An agent that was declared through the API answers like one of the settings."""
    answer = client.chat.completions.create(model="for-all", messages=[{"role": "user", "content": "x"}])
    assert answer.choices[0].message.content == "mock response"


def test_embeddings(gateway_server: GatewayServer, client: Any) -> None:
    """One vector per text, in order, by `provider/model`, by a declared model, or by an agent; the tokens are noted."""
    for model in ("scripted/mock-embedding", "vectors", "for-all", "default"):
        answer = client.embeddings.create(model=model, input=["a" * 100, "b" * 200])
        assert [round(vector.embedding[0], 4) for vector in answer.data] == [0.01, 0.02]
        assert answer.usage.total_tokens > 0
        assert answer.model == model

    async def records(gateway: Gateway) -> list[UsageRecord]:
        return await UsageReport(gateway.backend.state).recent()

    noted = [record for record in gateway_server.do(records) if record.task_id.startswith("emb_")]
    assert len(noted) >= 4
    assert noted[0].usage.input_tokens == answer.usage.prompt_tokens


async def test_embeddings_as_numbers_and_as_bytes(gateway_server: GatewayServer) -> None:
    """Both encodings hold the same numbers."""
    given = {"model": "vectors", "input": "a" * 100, "dimensions": 3}
    async with gateway_server.client() as http:
        plain = (await http.post("/v1/embeddings", json={**given, "encoding_format": "float"})).json()
        packed = (await http.post("/v1/embeddings", json={**given, "encoding_format": "base64"})).json()
    numbers = struct.unpack("<3f", base64.b64decode(packed["data"][0]["embedding"]))
    assert list(numbers) == pytest.approx(plain["data"][0]["embedding"])
    assert plain["data"][0]["embedding"] == [1.0, 0.0, 0.0]  # cut to three, and brought to length 1 again


def test_embeddings_keep_to_what_the_caller_may_use(gateway_server: GatewayServer) -> None:
    """Whoever is bound to an app has that app's models; whoever is bound to a tenant names no provider."""
    use = [Scope.AGENTS_USE]
    with openai_client(gateway_server, api_key=gateway_server.make_key(use, app="shop")) as of_shop:
        assert of_shop.embeddings.create(model="vectors", input="x").data
        for model in ("other-vectors", "scripted/mock-embedding", "for-all"):
            with pytest.raises(openai.NotFoundError):
                of_shop.embeddings.create(model=model, input="x")
    of_acme = gateway_server.make_key(use, tenant="acme")
    with openai_client(gateway_server, api_key=of_acme) as client, pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="scripted/mock-embedding", input="x")


def test_embeddings_refuse_what_has_no_vector(client: Any) -> None:
    """Tokens, nothing, and more numbers than there are."""
    with pytest.raises(openai.BadRequestError, match="tokens"):
        client.embeddings.create(model="vectors", input=[[1, 2, 3]])
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.embeddings.create(model="vectors", input=["x", ""])
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="vectors", input="x", dimensions=100_000)


async def test_anthropics_pages(gateway_server: GatewayServer) -> None:
    """A page is bounded, and says whether there is more, in both directions."""
    headers = {"anthropic-version": "2023-06-01"}
    async with gateway_server.client(headers=headers) as http:

        async def page(**query: object) -> httpx.Response:
            return await http.get("/v1/models", params={key: str(value) for key, value in query.items()})

        everything = (await page(limit=1000)).json()
        first = (await page(limit=2)).json()
        then = (await page(limit=2, after_id=first["last_id"])).json()
        back = (await page(limit=2, before_id=then["first_id"])).json()
        refused = await page(limit=0)
    ids = [model["id"] for model in everything["data"]]
    assert not everything["has_more"]
    assert [model["id"] for model in (*first["data"], *then["data"])] == ids[:4]
    assert first["has_more"]
    assert back["data"] == first["data"]
    assert not back["has_more"]
    assert (refused.status_code, refused.json()["type"]) == (400, "error")
