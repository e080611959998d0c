"""Queue, chunks and state on different servers still end runs in good order."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from queue_backends import Backend, BackendOptions, open_backend
from queue_backends.composed import ComposedBackend
from queue_backends.conformance import CommitConformance, OpenBackend
from tests.servers import Server
from worker.assembly import open_backends, same_server
from worker.settings import load_settings


class TestComposedCommit(CommitConformance):
    """The whole suite of commits, composed of single steps over three databases."""

    @pytest.fixture
    async def open_backend(self, valkey_server: Server, stream: str) -> AsyncIterator[OpenBackend]:
        """Queue in database 0, chunks in 1, state in 2."""
        opened: list[Backend] = []

        async def opener(options: BackendOptions | None = None) -> Backend:
            base = valkey_server.url().rpartition("/")[0]
            parts = [await open_backend(f"{base}/{db}?stream={stream}", options) for db in range(3)]
            opened.append(ComposedBackend(*parts))
            return opened[-1]

        yield opener
        for backend in opened:
            await backend.close()


@pytest.mark.parametrize(
    ("stream_url", "is_composed"),
    [("", False), ("redis://127.0.0.1:{port}", False), ("redis://127.0.0.1:{port}/1", True)],
)
async def test_stream_url_of_the_same_server_is_no_second_engine(
    valkey_server: Server, stream: str, stream_url: str, is_composed: bool
) -> None:
    """An ark operator names the same server twice, once with a queue and once without."""
    settings = load_settings(
        {},
        overrides={
            "queue_url": f"redis://127.0.0.1:{valkey_server.port}?stream={stream}",
            "stream_url": stream_url.format(port=valkey_server.port),
        },
    )
    async with await open_backends(settings) as backend:
        assert isinstance(backend, ComposedBackend) is is_composed


def test_same_server_ignores_queue_names_only() -> None:
    """A database is part of the address."""
    assert same_server("redis://h:1/", "redis://h:1?stream=a")
    assert not same_server("redis://h:1/1", "redis://h:1/2")
