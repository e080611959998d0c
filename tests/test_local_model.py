"""The small local model: real tokens over HTTP, and no process left behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from worker import local_model
from worker.local_model import LocalModel, LocalModelUnavailable

DEADLINE_S = 60
REPOSITORY = Path(__file__).parents[1]

needs_model = [
    pytest.mark.local_model,
    pytest.mark.skipif(not LocalModel.available(), reason="the model's wheels are not installed"),
]

OWNER = """
import asyncio
from worker.local_model import LocalModel

async def main():
    async with LocalModel() as model:
        print(model.base_url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def wait_until_closed(connection: socket.socket) -> None:
    """Until the other end of the connection is gone."""
    with connection:
        assert select.select([connection], [], [], DEADLINE_S)[0], "the server is still there"
        with contextlib.suppress(ConnectionResetError):  # what it had not read yet makes its end a reset
            assert connection.recv(1) == b""


def begin_request(base_url: str) -> socket.socket:
    """A connection with half a request on it, which the server does not close by itself for many minutes."""
    url = httpx.URL(base_url)
    assert url.port is not None
    connection = socket.create_connection((url.host, url.port), timeout=DEADLINE_S)
    connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
    return connection


class TestServing:
    """With the wheels installed."""

    pytestmark = needs_model

    async def test_answers_with_real_tokens_and_usage(self) -> None:
        """The server speaks OpenAI's chat completions, streams, and ends with its context."""
        async with LocalModel() as model, httpx.AsyncClient(timeout=DEADLINE_S) as client:
            begun = begin_request(model.base_url)
            answer = await client.post(
                f"{model.base_url}/chat/completions",
                json={
                    "model": local_model.MODEL_NAME,
                    "messages": [{"role": "user", "content": "Say hello."}],
                    "max_tokens": 4,
                },
            )
        body = answer.json()
        assert body["choices"][0]["message"]["content"].strip()
        assert 0 < body["usage"]["completion_tokens"] <= 4
        wait_until_closed(begun)

    async def test_two_models_do_not_collide(self) -> None:
        """Each one takes a port of its own."""
        async with LocalModel() as first, LocalModel() as second:
            assert first.base_url != second.base_url

    def test_ends_when_its_owner_is_killed(self) -> None:
        """A killed owner cannot clean up; the server learns of it all the same."""
        with subprocess.Popen([sys.executable, "-c", OWNER], cwd=REPOSITORY, stdout=subprocess.PIPE) as owner:
            assert owner.stdout is not None
            assert select.select([owner.stdout], [], [], DEADLINE_S)[0], "the model was not ready in time"
            begun = begin_request(owner.stdout.readline().decode().strip())

            os.kill(owner.pid, signal.SIGKILL)

            wait_until_closed(begun)

    async def test_a_failing_start_shows_the_reason(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An engine that ends while it starts is reported with its last words, not waited for."""
        package = tmp_path / "xllamacpp"
        package.mkdir()
        (package / "__init__.py").write_text("raise ImportError('built for another machine')")
        monkeypatch.setattr(local_model, "_source_root", lambda: f"{tmp_path}{os.pathsep}{REPOSITORY}")

        with pytest.raises(LocalModelUnavailable, match="built for another machine"):
            async with LocalModel():
                raise AssertionError("the model must not come up")


def test_without_the_wheels_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not available, with a reason that holds the commands."""
    monkeypatch.setattr(local_model, "_weights", lambda: None)

    assert not LocalModel.available()
    assert local_model.INSTALL_HINT in LocalModel.missing()


async def test_entering_without_the_wheels_fails_with_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the context is the reason that `missing` gives."""
    monkeypatch.setattr(local_model, "_weights", lambda: None)

    with pytest.raises(LocalModelUnavailable, match="pip install"):
        async with LocalModel():
            raise AssertionError("the model must not come up")


def test_there_is_no_address_before_the_start() -> None:
    """Asking too early says how to use it."""
    with pytest.raises(LocalModelUnavailable, match="async with"):
        _ = LocalModel().base_url
