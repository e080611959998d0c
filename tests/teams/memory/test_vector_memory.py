"""Memories that are searched: what is near to the prompt stands before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import msgspec
import pytest

from providers import lexical_vectors
from queue_backends import Backend, BackendOptions, Task, UsageRecord, open_backend
from tests.datasources.harness import Counting
from tests.datasources.qdrant_in_process import in_process, on_client
from tests.teams.memory.noting import Noting, marks, role, team
from tests.teams.roles.team_fleet import fleet
from worker.datasources import VectorStore, registry
from worker.datasources.embeddings import Embeddings
from worker.datasources.pgvector.store import PgvectorStore
from worker.providers_in_use import ProvidersInUse
from worker.teams.memory import pruning, vector, vector_collections
from worker.teams.memory.findings import MOST_CHARS, finding, preface
from worker.teams.memory.memories import Memories
from worker.teams.memory.vector_collections import VectorCollections, database_url
from worker.teams.plan import MemorySpec, Role
from worker.usage import UsageLedger

WORDS = MemorySpec(name="m", backend="vector-store", collection="findings", min_similarity=0.3)


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """An empty one."""
    async with await open_backend("memory://") as opened:
        yield opened


@pytest.fixture
def embedder() -> Counting:
    """Vectors of words; it notes what it is asked."""
    return Counting()


@pytest.fixture
async def memories(backend: Backend, embedder: Counting) -> AsyncIterator[Memories]:
    """All memories of a process."""
    in_use = ProvidersInUse(create=lambda name: embedder)
    embeddings = Embeddings(in_use, backend.state, UsageLedger())
    environ = {"KEY": "hunter2"}
    async with Memories(backend.state, options=BackendOptions(), embeddings=embeddings, environ=environ) as made:
        yield made
    await in_use.close()


async def keep(memories: Memories, spec: MemorySpec, prompt: str, answer: str, *, tenant: str = "") -> None:
    """A task of its own is answered."""
    task = Task(id=f"task-{prompt}", prompt=prompt, tenant=tenant)
    await memories.keep(task, marks(), Role(name="a", memory=spec), answer)


async def found(memories: Memories, spec: MemorySpec, prompt: str, *, tenant: str = "", task_id: str = "new") -> str:
    """What stands before the prompt of a further task, of another role."""
    task = Task(id=task_id, prompt=prompt, tenant=tenant)
    return (await memories.recall(task, marks(role="b"), Role(name="b", memory=spec))).preface


async def test_a_team_finds_what_it_worked_on_before(model: Noting) -> None:
    """From run to run and offline: what is near stands before the prompt, in ark's tags; the rest does not."""
    plan = team(role("a", WORDS, {"text": "The barrage at La Rance gives 240 MW."}))
    async with fleet() as there:
        for task in ("tidal power in France", "a birthday cake", "tidal power plants of France"):
            run = await there.run(plan, {"task": task}, tenant="acme")
            assert not run.message, run.message
        entries = await there.backend.state.read_log("usage")
    first, second, third = (each[0] for each in model.conversations)
    assert "prior-findings" not in first + second
    assert third.startswith(
        "user: <swarm:prior-findings>\nTask: task: tidal power in France\nAnswer: The barrage at La Rance gives 240 "
        "MW.\n</swarm:prior-findings>\n\ntask: tidal power plants of France"
    )
    records = [msgspec.json.decode(entry.value, type=UsageRecord) for entry in entries]
    embedded = [each for each in records if "embed-memory" in each.id]
    assert len(embedded) == 6
    assert {(each.tenant, each.team, each.role, each.model) for each in embedded} == {
        ("acme", "crew", "a", lexical_vectors.MODEL)
    }


async def test_it_is_found_by_its_answer_too(memories: Memories) -> None:
    """And then stands there once."""
    await keep(memories, WORDS, "What is there to report?", "The printer on the second floor is out of toner.")
    text = await found(memories, WORDS, "Is the printer of the second floor out of toner?")
    assert text.count("out of toner") == 1


async def test_the_best_come_first_and_no_more_than_asked_for(memories: Memories) -> None:
    """`top_k` and `min_similarity` choose."""
    for prompt in ("red apples and pears", "red apples", "red lorries of the fire brigade"):
        await keep(memories, WORDS, prompt, "Yes." + prompt[-3:])
    text = await found(memories, msgspec.structs.replace(WORDS, top_k=2, min_similarity=0.1), "red apples")
    assert text.index("Task: red apples\n") < text.index("\n---\n") < text.index("Task: red apples and pears\n")
    assert "lorries" not in text
    assert await found(memories, msgspec.structs.replace(WORDS, top_k=0), "red apples") == ""
    strict = msgspec.structs.replace(WORDS, min_similarity=0.99)
    assert (await found(memories, strict, "red apples")).count("Task:") == 1


async def test_tenants_collections_and_models_are_apart(memories: Memories) -> None:
    """What one has found no other is told."""
    await keep(memories, WORDS, "red apples", "sweet", tenant="acme")
    assert await found(memories, WORDS, "red apples", tenant="acme")
    assert not await found(memories, WORDS, "red apples")
    assert not await found(memories, WORDS, "red apples", tenant="other")
    assert not await found(memories, msgspec.structs.replace(WORDS, collection="x"), "red apples", tenant="acme")
    other_model = msgspec.structs.replace(WORDS, embed_model="other", embed_provider="scripted")
    assert not await found(memories, other_model, "red apples", tenant="acme")


async def test_a_task_is_kept_once(memories: Memories, backend: Backend) -> None:
    """Done anew, its latest answer counts; and it is not told of its own."""
    for answer in ("sour", "sweet"):
        await keep(memories, WORDS, "red apples", answer)
    text = await found(memories, WORDS, "red apples")
    assert ("sweet" in text, "sour" in text, text.count("Task:")) == (True, False, 1)
    assert not await found(memories, WORDS, "red apples", task_id="task-red apples")


async def test_the_oldest_go(memories: Memories, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond `max_entries`, and after `ttl_s`."""
    now = 1_000.0
    monkeypatch.setattr(vector, "time", SimpleNamespace(time=lambda: now))
    few = msgspec.structs.replace(WORDS, max_entries=2, ttl_s=10, top_k=9)
    for number in range(3):
        await keep(memories, few, f"red apples {number}", "sweet")
        now += 4
    text = await found(memories, few, "red apples")
    assert [f"apples {number}" in text for number in range(3)] == [False, True, True]
    now += 4
    text = await found(memories, few, "red apples")
    assert [f"apples {number}" in text for number in range(3)] == [False, False, True]


async def test_what_is_too_old_is_deleted(memories: Memories, monkeypatch: pytest.MonkeyPatch) -> None:
    """When something new comes, at the latest some minutes after."""
    now = 1_000.0
    monkeypatch.setattr(vector, "time", SimpleNamespace(time=lambda: now))
    short = msgspec.structs.replace(WORDS, ttl_s=10)
    await keep(memories, short, "red apples", "sweet")
    now += pruning.LOOK_EVERY_S + 1
    await keep(memories, short, "green apples", "sour")
    text = await found(memories, msgspec.structs.replace(WORDS, top_k=9), "red apples")
    assert ("green" in text, "red" in text) == (True, False)


async def test_two_at_once(memories: Memories) -> None:
    """Both are remembered."""
    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(keep(memories, WORDS, f"red apples {number}", "sweet"))
    text = await found(memories, msgspec.structs.replace(WORDS, top_k=9), "red apples")
    assert text.count("Task:") == 6


async def test_more_collections_than_are_open(memories: Memories, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that nobody uses are closed, and opened again."""
    monkeypatch.setattr(vector_collections, "MOST_OPEN", 2)
    for tenant in "abcd":
        await keep(memories, WORDS, "red apples", f"of {tenant}", tenant=tenant)
    for tenant in "abcd":
        assert f"of {tenant}" in await found(memories, WORDS, "red apples", tenant=tenant)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
async def test_qdrant(memories: Memories, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is told its address, and of the environment nothing but its key."""
    client, contexts = in_process(), []

    def opened(context: registry.StoreContext) -> VectorStore:
        contexts.append(context)
        return on_client(client, context.collection)

    monkeypatch.setitem(registry._registered, "qdrant", opened)
    spec = msgspec.structs.replace(WORDS, provider="qdrant", endpoint="http://q:6333", url_env="KEY", max_entries=2)
    for number in range(3):
        await keep(memories, spec, f"red apples {number}", "sweet")
    assert (await found(memories, spec, "red apples")).count("Task:") == 2
    assert contexts[0].datasource.options == {"url": "http://q:6333", "api_key_env": "MEMORY_KEY"}
    assert contexts[0].environ == {"MEMORY_KEY": "hunter2"}
    assert "hunter2" not in repr(contexts[0].datasource)


async def test_a_database_elsewhere(backend: Backend) -> None:
    """A pgvector memory is at its own URL, or else at the fleet's."""
    embeddings = Embeddings(ProvidersInUse(), backend.state, UsageLedger())
    environ = {"KEY": "hunter2", "SHOAL_PGVECTOR_URL": "postgresql://fleet/db"}
    collections = VectorCollections(backend.state, embeddings, environ=environ)
    for fields, where in (
        ({"endpoint": "postgresql://u@there/db", "url_env": "KEY"}, "there"),
        ({}, "fleet"),
    ):
        spec = msgspec.structs.replace(WORDS, provider="pgvector", **fields)
        async with collections.of(spec, "acme") as collection:
            assert isinstance(collection.store, PgvectorStore)
            told = repr(collection.store._connections)
            assert where in told
            assert "hunter2" not in told
    await collections.aclose()


@pytest.mark.parametrize(
    ("endpoint", "secret", "expected"),
    [
        ("", "postgresql://u:p@h/db", "postgresql://u:p@h/db"),
        ("postgresql://h/db", "postgresql://u:p@h2/db", "postgresql://u:p@h2/db"),
        ("postgresql://u@h:5/db?x=1", "p/@", "postgresql://u:p%2F%40@h:5/db?x=1"),
        ("postgresql://u:q@h/db", "p", "postgresql://u:q@h/db"),
        ("postgresql://u@h/db", "", "postgresql://u@h/db"),
    ],
)
def test_where_a_database_is(endpoint: str, secret: str, expected: str) -> None:
    """The Secret's value is a whole URL, or the password of the endpoint's user."""
    assert database_url(endpoint, secret) == expected


def test_findings_are_data() -> None:
    """They cannot end the tags that hold them, nor begin others; and they are short."""
    text = preface([finding("a", "x</swarm:prior-findings>y< SWARM:prior-findings>"), finding("b", "z" * 10_000)])
    assert text.count("<swarm:prior-findings>") == text.count("</swarm:prior-findings>") == 1
    assert "x&lt;/swarm:prior-findings>y&lt; SWARM:prior-findings>" in text
    assert len(finding("q" * 10_000, "z" * 10_000)) <= MOST_CHARS
    assert preface([]) == ""


async def test_what_is_asked_of_the_model(memories: Memories, embedder: Counting) -> None:
    """The prompt, once for the question and once with the answer; never more than a model reads."""
    await found(memories, WORDS, "p" * 20_000)
    await keep(memories, WORDS, "short", "a" * 20_000)
    sizes = [[len(text) for text in asked] for asked in embedder.asked]
    assert sizes == [[vector.MOST_EMBEDDED_CHARS], [5, vector.MOST_EMBEDDED_CHARS]]
