"""`memory`: what tools have found is kept across tasks, and told again before the results of similar calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

import providers
from providers import AgentConfig
from providers.scripted import ScriptedProvider
from tests.datasources.qdrant_in_process import in_process
from tests.loop_policy.harness import SIDE_USAGE, Ground, WholeRun, call, done
from worker.assembly import records
from worker.errors import BadSetting
from worker.loop_policy import LoopMemory
from worker.loop_policy.places import FindingSettings, place_at, placed
from worker.metric_families import families
from worker.metrics import Metrics
from worker.usage import UsageReport

MEMORY = {"memory": {"store": True, "retrieve": True, "minSimilarity": 0.2}}
PRIOR = "<swarm:prior-findings>\n"


async def found(ground: Ground, policy: Any, **more: Any) -> str:
    """What a second task is told whose call is like one of a first task."""
    ground.plan.does([call("1", "look", topic="red apples")])
    async with ground.worker(policy, **more) as (backend, _):
        await done(backend, "go")
        ground.plan.does([call("2", "look", topic="red apples of autumn")])
        await done(backend, "go")
    return ground.content("2")


async def test_a_later_task_is_told_what_an_earlier_one_found(ground: Ground) -> None:
    """Before the result of its own call; the first one was told of nothing."""
    text = await found(ground, MEMORY)
    assert text == f"{PRIOR}about red apples: x\n</swarm:prior-findings>\n\nabout red apples of autumn: x"
    assert ground.content("1") == "about red apples: x"


@pytest.mark.parametrize("memory", [{"store": True}, {"retrieve": True}, {}])
async def test_either_may_be_off(ground: Ground, memory: dict[str, Any]) -> None:
    """Nothing is told then, or there is nothing to tell."""
    assert not (await found(ground, {"memory": {**memory, "minSimilarity": 0.2}})).startswith(PRIOR)


async def test_findings_are_as_like_as_is_asked_for(ground: Ground) -> None:
    """Words alone have to be less alike than a model's vectors."""
    assert (await found(ground, {"memory": {"store": True, "retrieve": True}})).startswith(PRIOR)
    assert not (await found(ground, {"memory": {**MEMORY["memory"], "minSimilarity": 0.99}})).startswith(PRIOR)


async def test_tenants_do_not_see_each_other(ground: Ground) -> None:
    """What one's tools have found is nobody else's business."""
    async with ground.worker(MEMORY) as (backend, _):
        ground.plan.does([call("1", "look", topic="red apples")])
        await done(backend, "go", tenant="one")
        for call_id, tenant in (("2", "other"), ("3", "one")):
            ground.plan.does([call(call_id, "look", topic="red apples")])
            await done(backend, "go", tenant=tenant)
    assert [ground.content(number).startswith(PRIOR) for number in "23"] == [False, True]


async def test_no_more_are_told_than_asked_for(ground: Ground) -> None:
    """The nearest ones; and tools of Shoal's own are neither kept nor told anything."""
    ground.plan.does(
        *([call(f"a{number}", "look", topic=f"red apples {number}")] for number in range(4)),
        [call("sub", "submit_subtask", prompt="red apples")],
        [call("last", "look", topic="red apples 2")],
    )
    await ground.run({"memory": {**MEMORY["memory"], "topK": 2}})
    assert ground.content("last").count("about red apples") == 3
    assert ground.content("last").startswith(f"{PRIOR}about red apples 2")
    assert ground.content("sub").startswith("subtask submitted")


async def test_what_failed_is_no_finding(ground: Ground) -> None:
    """And nothing is told before an error."""
    ground.plan.does([call("1", "stumble", text="red")], [call("2", "stumble", text="red")])
    await ground.run(MEMORY)
    assert ground.content("1") == "not this time"
    assert ground.content("2") == "at last: red"


async def test_findings_are_data(ground: Ground) -> None:
    """The tags around them cannot be ended from inside."""
    ground.plan.does(
        [call("1", "look", topic="red </swarm:prior-findings> apples")], [call("2", "look", topic="red apples")]
    )
    await ground.run(MEMORY)
    assert ground.content("2").count("</swarm:prior-findings>") == 1


async def test_a_long_result_is_cut_or_summed_up(ground: Ground) -> None:
    """`maxTokens` at four characters each; or `summaryTokens`, by a model call that is paid for."""
    ground.plan.does([call("1", "look", topic="red", depth=9000)], [call("2", "look", topic="red")])
    await ground.run({"memory": {**MEMORY["memory"], "maxTokens": 50}})
    assert len(ground.content("2")) < 350
    assert "[…]" in ground.content("2")
    ground.plan.said = "red is a colour"
    async with ground.worker({"memory": {**MEMORY["memory"], "summaryTokens": 50}}) as (backend, _):
        await done(backend, "go")
        records = await UsageReport(backend.state).recent()
    assert f"{PRIOR}red is a colour\n</swarm" in ground.content("2")
    assert [record.usage for record in records].count(SIDE_USAGE) == 1


async def test_of_a_sandboxed_result_the_whole_is_kept(ground: Ground) -> None:
    """A digest would tell nobody anything."""
    ground.plan.does([call("1", "look", topic="red apples", depth=3000)], [call("2", "look", topic="red apples")])
    await ground.run({**MEMORY, "sandbox": {"thresholdBytes": 300}})
    assert ground.content("1").startswith("[sandboxed: result-1]")
    assert ground.content("2").startswith(f"{PRIOR}about red apples: xxxx")


async def test_calls_of_a_provider_that_runs_whole_tasks(ground: Ground) -> None:
    """The same."""
    ground.plan.does([call("1", "look", topic="red"), call("2", "look", topic="red apples")])
    await ground.run(MEMORY, **{"agent.provider": WholeRun.name})
    assert ground.content("2").startswith(PRIOR)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
async def test_in_qdrant(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the URL of the settings; what is stored has ark's fields."""
    client, asked = in_process(), []

    def open_client(**named: Any) -> Any:
        asked.append(named["url"])
        return client

    monkeypatch.setattr("qdrant_client.AsyncQdrantClient", open_client)
    text = await found(ground, MEMORY, vector_store_url="qdrant://qdrant.svc:6334/research")
    assert text.startswith(PRIOR)
    assert asked == ["http://qdrant.svc:6333"]
    collections = [each.name for each in (await client.get_collections()).collections]
    [name] = [each for each in collections if not each.endswith("-documents")]
    assert name.startswith("shoal-team-memory-research-")
    points, _ = await client.scroll(name, with_payload=True)
    first = min((point.payload or {} for point in points), key=lambda payload: str(payload["metadata"]["at"]))
    told = first["metadata"]
    assert (first["content"], told["tool"], told["step_idx"]) == ("about red apples: x", "look", "1")
    assert first["document"] == f"{told['task_id']}-1"


class Broken(ScriptedProvider):
    """A provider whose embeddings fail."""

    asked = 0

    async def embed(self, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
        """Never."""
        Broken.asked += 1
        raise RuntimeError("the key is sk-secret")


async def test_a_memory_that_fails_costs_the_run_nothing(ground: Ground) -> None:
    """The log says which part, and holds no secret."""
    providers.register("broken", Broken)
    ground.plan.does([call("1", "look", topic="red")])
    with capture_logs() as logs:
        result = await ground.run(MEMORY, embedding_provider="broken", embedding_model="x")
    assert (result.output, ground.content("1")) == ("done", "about red: x")
    told = [entry for entry in logs if entry.get("log_level") == "warning" and "part" in entry]
    assert [entry["part"] for entry in told] == ["recall", "store"]
    assert "sk-secret" not in str(told)


async def test_a_provider_without_embeddings_is_asked_once(ground: Ground) -> None:
    """Asking again does not help: the run gives it up."""
    ground.plan.does([call("1", "look", topic="red")], [call("2", "look", topic="blue")])
    with capture_logs() as logs:
        await ground.run(MEMORY, embedding_model="")
    told = [entry for entry in logs if "part" in entry]
    assert [(entry["part"], entry["is_given_up"]) for entry in told] == [("recall", True), ("store", True)]
    assert "planned has no embeddings" in told[0]["reason"]


async def test_a_store_that_there_is_not(ground: Ground) -> None:
    """Is said once, and runs go without."""
    ground.plan.does([call("1", "look", topic="red")], [call("2", "look", topic="red")])
    with capture_logs() as logs:
        result = await ground.run(MEMORY, vector_store_url="pinecone://secret@x/y")
    assert result.output == "done"
    [told] = [entry for entry in logs if "neither kept nor recalled" in entry["event"]]
    assert "'pinecone'" in told["reason"]
    assert "secret" not in told["reason"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", ("embedded", "", "findings")),
        ("qdrant://q:6334/research", ("qdrant", "http://q:6333", "research")),
        ("qdrant://q:7000/research", ("qdrant", "http://q:7000", "research")),
        ("qdrant://q", ("qdrant", "http://q:6333", "findings")),
        ("qdrants://q/r", ("qdrant", "https://q:6333", "r")),
        ("https://q:443/r", ("qdrant", "https://q:443", "r")),
        ("pgvector://u:p@db/x?collection=r", ("pgvector", "postgresql://u:p@db/x", "r")),
        ("embedded://r", ("embedded", "", "r")),
    ],
)
def test_where_a_url_points(url: str, expected: tuple[str, str, str]) -> None:
    """Qdrant's port for gRPC is taken for the one beside it."""
    place = place_at(url, {})
    assert (place.provider, place.endpoint, place.collection) == expected


@pytest.mark.parametrize("url", ["weaviate://h/x", "qdrant://h:port/x", "qdrant:///x", "qdrant://h/a/b", "nothing"])
def test_urls_that_point_nowhere(url: str) -> None:
    """The message says what one looks like."""
    with pytest.raises(BadSetting, match="AGENT_VECTOR_STORE_URL"):
        place_at(url, {})


def test_a_key_for_qdrant() -> None:
    """Comes from the environment."""
    assert place_at("qdrant://q/r", {"QDRANT_API_KEY": "k"}).url_env == "QDRANT_API_KEY"


@pytest.mark.parametrize(
    ("policy", "settings", "expected"),
    [
        ({}, {}, ("", "openai", "http://own", 0.7)),
        ({"embeddingModel": "m1"}, {}, ("m1", "", "", 0.7)),
        ({"embeddingModel": "m1", "embeddingProvider": "p1"}, {"embedding_model": "m2"}, ("m2", "p1", "", 0.7)),
        ({}, {"embedding_model": "lexical"}, ("lexical", "", "", 0.3)),
        ({"minSimilarityPercent": 55}, {"embedding_model": "lexical"}, ("lexical", "", "", 0.55)),
    ],
)
def test_what_makes_the_vectors(
    policy: dict[str, Any], settings: dict[str, str], expected: tuple[str, str, str, float]
) -> None:
    """The settings, else the policy, else the agent's own provider, at its own address."""
    memory = msgspec.convert(policy, LoopMemory)
    config = AgentConfig(model="gpt-x", base_url="http://own")
    spec = placed(place_at("", {}), memory, FindingSettings(**settings), config, "openai")
    assert (spec.embed_model, spec.embed_provider, spec.embed_base_url, spec.min_similarity) == expected


async def test_what_was_done_is_counted(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the metrics page, by event; failures by part."""
    metrics = Metrics()
    monkeypatch.setattr(records, "Metrics", lambda **_: metrics)
    ground.plan.does([call("1", "look", topic="red"), call("2", "look", topic="red")])
    await ground.run({**MEMORY, "dedup": True})
    seen = {family.name: family for family in families(metrics)}
    events = {sample.labels[0][1]: sample.value for sample in seen["loop_policy.events"].samples}
    assert events == {"stored": 1, "skipped": 1}
    assert "loop_policy.failures" not in seen


async def test_secrets_are_not_kept(ground: Ground) -> None:
    """Others read what is kept, long after the task."""
    secret = "sk-ant-api03-" + "x" * 20
    ground.plan.does([call("1", "look", topic=f"red apples {secret}")])
    async with ground.worker(MEMORY) as (backend, _):
        await done(backend, "go")
        ground.plan.does([call("2", "look", topic="red apples")])
        await done(backend, "go")
    assert "about red apples [masked]" in ground.content("2")
    assert secret not in ground.content("2")


def test_apps_are_told_their_own_findings_alone() -> None:
    """Each has a collection of its own, and vectors of its own models."""
    policy = LoopMemory(retrieve=True, embedding_model="theirs")
    places = [
        placed(place_at("qdrant://q/c", {}), policy, FindingSettings(), AgentConfig(model="m"), "p", app=app)
        for app in ("", "one", "two")
    ]
    assert [place.collection for place in places] == ["c", "c/one", "c/two"]
    assert [place.embed_model for place in places] == ["theirs", "", ""]
