"""The schema in PostgreSQL: made once whoever comes, upgraded, refused where it is not ours to use."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from queue_backends import BackendMisconfigured, BackendOptions, CancelOutcome, Task
from queue_backends.postgresql import migrations, open_backend
from queue_backends.postgresql.backend import PostgresqlBackend
from queue_backends.postgresql.migrate import main
from tests.postgresql_servers import PASSWORD, PROGRAMS, PostgresqlServer

OPTIONS = BackendOptions()


@pytest.fixture(scope="module", params=sorted(PROGRAMS))
def server(request: pytest.FixtureRequest, postgresql_server: PostgresqlServer) -> Iterator[PostgresqlServer]:
    """Each kind of server that there is here."""
    if request.param == "18":
        yield postgresql_server
        return
    programs = PROGRAMS[request.param]()
    if programs is None:
        pytest.skip(f"no {request.param} PostgreSQL on this machine")
    with PostgresqlServer(programs) as started:
        yield started


@pytest.fixture
def schema() -> str:
    """The name of a schema that no other test uses."""
    return f"s_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def role(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """A role that may connect, and nothing else."""
    name = f"r_{uuid.uuid4().hex[:12]}"
    with postgresql_server.connect() as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(PASSWORD))
        )
        yield name
        connection.execute(sql.SQL("DROP OWNED BY {}; DROP ROLE {}").format(*[sql.Identifier(name)] * 2))


def _versions(server: PostgresqlServer, schema: str) -> list[int]:
    query = sql.SQL("SELECT version FROM {} ORDER BY version").format(sql.Identifier(schema, "schema_version"))
    with server.connect() as connection:
        return [version for (version,) in connection.execute(query)]


async def _run_one_task(url: str) -> None:
    async with await open_backend(url, OPTIONS) as backend:
        task_id = await backend.queue.submit(Task(prompt="hello"))
        (delivery,) = await backend.queue.pull(1, 20)
        assert delivery.task.id == task_id
        await backend.queue.nack(delivery, "no", dead=True)
        (letter,) = await backend.queue.dead_letters()
        assert await backend.queue.requeue([letter.id]) == [task_id]
        assert await backend.queue.cancel([task_id]) == [CancelOutcome.CANCELLED]


async def _read_a_key(url: str) -> None:
    async with await open_backend(url, OPTIONS) as backend:
        await backend.state.get("key")


async def test_an_empty_database_is_made_ready_once(server: PostgresqlServer, schema: str) -> None:
    """The first to open makes the schema, the next one finds it, and both can work."""
    for _ in range(2):
        await _run_one_task(server.url("q", schema=schema))
        assert _versions(server, schema) == [number for number, _, _ in migrations.migrations()]


async def test_of_eight_that_come_first_one_makes_the_schema(server: PostgresqlServer, schema: str) -> None:
    """All eight find it ready, and none sees it half made."""
    url = server.url("q", schema=schema)
    backends = await asyncio.gather(*(open_backend(url, OPTIONS) for _ in range(8)))
    try:
        ids = await asyncio.gather(*(backend.queue.submit(Task(prompt="hello")) for backend in backends))
        assert len(set(ids)) == 8
        assert (await backends[0].queue.stats()).ready == 8
    finally:
        for backend in backends:
            await backend.close()
    assert _versions(server, schema) == [number for number, _, _ in migrations.migrations()]


async def test_an_older_schema_is_upgraded(
    postgresql_server: PostgresqlServer, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the steps, only those that are missing are taken."""
    first, *_ = steps = migrations.migrations()
    monkeypatch.setattr(migrations, "migrations", lambda: (first,))
    with pytest.raises(BackendMisconfigured, match=r"keys.* does not exist"):
        await _read_a_key(postgresql_server.url("q", schema=schema))
    assert _versions(postgresql_server, schema) == [1]
    monkeypatch.setattr(migrations, "migrations", lambda: steps)
    await _run_one_task(postgresql_server.url("q", schema=schema))
    assert _versions(postgresql_server, schema) == [number for number, _, _ in steps]


async def test_a_step_that_fails_leaves_nothing(
    postgresql_server: PostgresqlServer, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps are one transaction: after a failure the schema is not there at all, and can be made."""
    steps = migrations.migrations()
    broken = (*steps, (999, "broken", "CREATE TABLE shoal.half (id int); SELECT 1 / 0;"))
    monkeypatch.setattr(migrations, "migrations", lambda: broken)
    with pytest.raises(Exception, match="division by zero"):
        await open_backend(postgresql_server.url("q", schema=schema), OPTIONS)
    monkeypatch.setattr(migrations, "migrations", lambda: steps)
    with postgresql_server.connect() as connection:
        found = connection.execute("SELECT to_regnamespace(%s)", (schema,)).fetchone()
    assert found == (None,)
    await _run_one_task(postgresql_server.url("q", schema=schema))


async def test_a_newer_schema_is_refused(postgresql_server: PostgresqlServer, schema: str) -> None:
    """A program that is older than the schema says so, with both versions, and touches nothing."""
    url = postgresql_server.url("q", schema=schema)
    await (await open_backend(url, OPTIONS)).close()
    table = sql.Identifier(schema, "schema_version")
    with postgresql_server.connect() as connection:
        connection.execute(sql.SQL("INSERT INTO {} (version, name) VALUES (999, 'future')").format(table))
    with pytest.raises(BackendMisconfigured, match=rf"{schema}.* version 999.* up to \d+: upgrade shoal"):
        await open_backend(url, OPTIONS)


async def test_a_role_without_rights_is_told_what_to_run(
    postgresql_server: PostgresqlServer, schema: str, role: str
) -> None:
    """Its line names the role and the command; once that has been run, the role works, and cannot change the schema."""
    url = postgresql_server.url("q", schema=schema, user=role)
    with pytest.raises(BackendMisconfigured, match=f"role '{role}' may not make.*migrate --grant {role} URL") as caught:
        await open_backend(url, OPTIONS)
    assert PASSWORD not in str(caught.value)
    with postgresql_server.connect() as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    with pytest.raises(BackendMisconfigured, match="--grant"):
        await open_backend(url, OPTIONS)
    owner = postgresql_server.url(schema=schema)
    assert await asyncio.to_thread(main, ["--grant", role, owner]) == 0
    await _run_one_task(url)
    async with await open_backend(url, OPTIONS) as backend:
        assert isinstance(backend, PostgresqlBackend)
        await backend._cleaner.clean()
        await backend.state.set("key", b"value")
        assert await backend.state.get("key") == b"value"


async def test_a_role_that_owns_the_schema_alone_can_make_it(
    postgresql_server: PostgresqlServer, schema: str, role: str
) -> None:
    """The right to create schemas is not needed where somebody has made one for the role."""
    with postgresql_server.connect() as connection:
        connection.execute(
            sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(sql.Identifier(schema), sql.Identifier(role))
        )
    await _run_one_task(postgresql_server.url("q", schema=schema, user=role))


async def test_what_is_printed_is_what_is_applied(
    postgresql_server: PostgresqlServer, schema: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The printed SQL makes a schema that this program takes as it is."""
    url = postgresql_server.url("q", schema=schema)
    assert main(["--print", url]) == 0
    with postgresql_server.connect() as connection:
        connection.execute(capsys.readouterr().out.encode())
    assert _versions(postgresql_server, schema) == [number for number, _, _ in migrations.migrations()]
    await _run_one_task(url)
    assert await asyncio.to_thread(main, [url]) == 0
    assert "is at version" in capsys.readouterr().out


def test_the_command_says_what_is_wrong(
    postgresql_server: PostgresqlServer, capsys: pytest.CaptureFixture[str], role: str
) -> None:
    """Status 1 and one line, without the password that the URL had."""
    assert main([postgresql_server.url(schema="no-such/name")]) == 1
    assert "schema='no-such/name'" in capsys.readouterr().err
    url = postgresql_server.url(schema="other", user=f"{role}:{psycopg.sql.quote('geheim')[1:-1]}")
    assert main([url]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "geheim" not in said


async def test_queues_and_schemas_are_kept_apart(postgresql_server: PostgresqlServer, schema: str) -> None:
    """Two queues of one schema, and two of one name in two schemas, share nothing that a user can see."""
    urls = [
        postgresql_server.url("one", schema=schema),
        postgresql_server.url("other", schema=schema),
        postgresql_server.url("one", schema=f"{schema}_2"),
    ]
    backends = [await open_backend(url, OPTIONS) for url in urls]
    try:
        task = Task(prompt="hello", idempotency_key="same")
        ids = [await backend.queue.submit(task) for backend in backends]
        assert len(set(ids)) == 3
        for number, backend in enumerate(backends):
            await backend.state.set("key", b"%d" % number)
            await backend.state.add("sums", "n", number)
        for number, backend in enumerate(backends):
            assert await backend.state.get("key") == b"%d" % number
            assert await backend.state.counters("sums") == {"n": number}
            assert [found.state.value for found in await backend.queue.status(ids)].count("unknown") == 2
            assert [delivery.task.id for delivery in await backend.queue.pull(10, 0)] == [ids[number]]
            assert await backend.queue.cancel([ids[number - 1]]) != ["cancelled"]
    finally:
        for backend in backends:
            await backend.close()
