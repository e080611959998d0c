"""What is pgvector's alone: names, versions, the URL, and a database that goes away."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from queue_backends import open_backend
from tests.datasources.test_vector_stores import document, vector
from tests.postgresql_servers import PostgresqlServer
from worker.datasources import BadVectorStore, Datasource, StoreUnavailable, VectorStore, registry


@pytest.fixture
async def state_url() -> AsyncIterator[registry.StoreContext]:
    """What a store is made of, without its data source's options."""
    async with await open_backend("memory://") as backend:
        yield registry.StoreContext(datasource=Datasource(slug="docs"), collection="1", state=backend.state, environ={})


def opened(context: registry.StoreContext, url: str, **options: str) -> VectorStore:
    """A store in that database."""
    source = Datasource(slug="docs", store="pgvector", options={"url_env": "DATABASE", **options})
    return registry.create(
        registry.StoreContext(datasource=source, collection="1", state=context.state, environ={"DATABASE": url})
    )


def a_table() -> str:
    """A name that no other test uses."""
    return f"t{random.randrange(10**9)}"


@pytest.mark.parametrize(
    "name", ['x"; DROP TABLE y; --', "a b", "a-b", "1a", "x" * 60, "a.b", "täble", "a\0b", "x; SELECT 1"]
)
@pytest.mark.parametrize("option", ["table", "schema"])
async def test_names_that_are_none(state_url: registry.StoreContext, option: str, name: str) -> None:
    """They are refused before anything is sent."""
    with pytest.raises(BadVectorStore, match=f"options.{option} is"):
        opened(state_url, "postgresql://nowhere.invalid/x", **{option: name})


async def test_a_slug_of_any_form_has_a_table(
    state_url: registry.StoreContext, postgresql_server: PostgresqlServer
) -> None:
    """Without a name of its own, a table is named after the data source: two never share one."""
    url, stores = postgresql_server.url(), []
    for slug, namespace in (("a.b", ""), ("a-b", ""), ("a-b", "acme"), ("select", ""), ("x" * 63, "y" * 63)):
        source = Datasource(slug=slug, namespace=namespace, store="pgvector", options={"url_env": "DATABASE"})
        context = registry.StoreContext(
            datasource=source, collection="1", state=state_url.state, environ={"DATABASE": url}
        )
        stores.append(registry.create(context))
    for number, store in enumerate(stores):
        await store.put([document(f"d{number}", 4)])
    for number, store in enumerate(stores):
        assert [head.id for head in await store.documents()] == [f"d{number}"]
        await store.drop()
        await store.aclose()


async def test_text_is_data(state_url: registry.StoreContext, postgresql_server: PostgresqlServer) -> None:
    """Ids and filters with the letters of statements in them are ids and filters."""
    table = a_table()
    store = opened(state_url, postgresql_server.url(), table=table)
    nasty = f"'; DROP TABLE {table}; -- %s {{passages}} \\"
    await store.put([document(nasty, 4), document("b", 4)])
    assert [head.id if head else None for head in await store.heads([nasty, "b"])] == [nasty, "b"]
    assert [head.id for head in await store.documents(prefix=nasty)] == [nasty]
    assert await store.delete([nasty]) == 1
    assert (await store.size()).documents == 1
    await store.drop()
    await store.aclose()


async def test_somebody_elses_table_is_left_alone(
    state_url: registry.StoreContext, postgresql_server: PostgresqlServer
) -> None:
    """A table of that name that is not ours is neither written nor dropped."""
    table = a_table()
    with postgresql_server.connect() as connection:
        connection.execute(f"CREATE TABLE {table}_documents (precious text)")
        connection.execute(f"INSERT INTO {table}_documents VALUES ('gold')")
    store = opened(state_url, postgresql_server.url(), table=table)
    with pytest.raises(BadVectorStore, match="already exists"):
        await store.put([document("a", 4)])
    await store.drop()
    with postgresql_server.connect() as connection:
        assert connection.execute(f"SELECT precious FROM {table}_documents").fetchall() == [("gold",)]
        connection.execute(f"DROP TABLE {table}_documents")
    await store.aclose()


async def test_tables_of_a_newer_version(state_url: registry.StoreContext, postgresql_server: PostgresqlServer) -> None:
    """They are not written by a program that does not know them."""
    table = a_table()
    store = opened(state_url, postgresql_server.url(), table=table)
    await store.put([document("a", 4)])
    with postgresql_server.connect() as connection:
        connection.execute(f"COMMENT ON TABLE {table}_documents IS 'shoal vectors, version 99'")
    with pytest.raises(BadVectorStore, match=r"newer version \(99\)"):
        await store.put([document("a", 4, edition=1)])
    await store.drop()
    await store.aclose()


async def test_a_search_uses_the_index(state_url: registry.StoreContext, postgresql_server: PostgresqlServer) -> None:
    """Cosine distance over the graph: the planner takes it when it may not read the whole table."""
    table = a_table()
    store = opened(state_url, postgresql_server.url(), table=table)
    await store.put([document("a", 8, passages=200)])
    literal = "[" + ",".join(map(str, vector("x", 8))) + "]"
    with postgresql_server.connect() as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(
            f"EXPLAIN SELECT content, embedding <=> %s::vector AS d FROM {table} ORDER BY d LIMIT 5", (literal,)
        ).fetchall()
    assert f"{table}_nearest" in str(plan)
    await store.drop()
    await store.aclose()


async def test_long_vectors(state_url: registry.StoreContext, postgresql_server: PostgresqlServer) -> None:
    """Beyond 2,000 numbers they are kept in half precision, and found all the same; 4,000 is the end."""
    store = opened(state_url, postgresql_server.url(), table=a_table())
    await store.put([document("a", 2100), document("b", 2100)])
    found = await store.search(vector(("a", 0, 1), 2100), limit=2)
    assert found[0].content == "a 0 1 — żółw"
    assert found[0].score == pytest.approx(1.0, abs=2e-3)
    await store.drop()
    with pytest.raises(BadVectorStore, match="have 4001 numbers"):
        await store.put([document("a", 4001)])
    await store.aclose()


async def test_the_database_is_away(state_url: registry.StoreContext) -> None:
    """It is said without the password, and as something that waiting helps."""
    store = opened(state_url, "postgresql://me:hunter2@127.0.0.1:1/db")
    with pytest.raises(StoreUnavailable, match="cannot be reached") as failed:
        await store.size()
    assert "hunter2" not in str(failed.value)
    assert "hunter2" not in repr(store)
    await store.aclose()


async def test_lost_connections_are_replaced(
    state_url: registry.StoreContext, postgresql_server: PostgresqlServer
) -> None:
    """After the server has cut all connections, at most the next call fails."""
    table = a_table()
    store = opened(state_url, postgresql_server.url(), table=table)
    await store.put([document("a", 4)])
    with postgresql_server.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'shoal datasources'"
        )
    with pytest.raises(StoreUnavailable):
        await store.size()
    assert (await store.size()).documents == 1
    await store.drop()
    await store.aclose()
