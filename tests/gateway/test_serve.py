"""`shoal serve`: as a process of its own, with keys, streams and SIGTERM; and what it refuses."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.gateway.gateway_harness import WITHIN_S
from worker.cli.app import run
from worker.errors import BadSetting
from worker.gateway.server import listening_socket
from worker.settings.gateway import GatewaySettings

ROOT = Path(__file__).parents[2]


class Serving:
    """A running `shoal serve` that writes JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def line_with(self, text: str) -> dict[str, object]:
        """The next line of its log that has a text in it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WITHIN_S):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line)
                if text in line:
                    found: dict[str, object] = json.loads(line)
                    return found
        raise AssertionError(f"it ended without {text!r}: {''.join(self.lines)}")


@asynccontextmanager
async def _serving(queue_url: str, *arguments: str, **environ: str) -> AsyncIterator[Serving]:
    around = {**os.environ, "PYTHONPATH": str(ROOT), "TASK_QUEUE_URL": queue_url, "SHOAL_LOG_FORMAT": "json", **environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker.cli", "serve", "--port", "0", "--no-grpc", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=around,
        limit=1 << 20,
    )
    try:
        yield Serving(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_life_of_a_gateway(queue_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It starts open on loopback; a key made by the command closes it; SIGTERM ends streams in order; exit code 0."""
    async with _serving(queue_url) as serving:
        url = str((await serving.line_with("gateway listens"))["url"])
        async with httpx.AsyncClient(base_url=url, timeout=WITHIN_S) as client:
            assert (await client.get("/v1/keys")).json() == {"keys": []}
            await asyncio.to_thread(run, ["key", "create", "ops", "--scope", "admin", "--queue", queue_url])
            key = capsys.readouterr().out.strip()
            async with asyncio.timeout(WITHIN_S):
                while (await client.get("/v1/keys")).status_code != 401:
                    await asyncio.sleep(0.02)
            client.headers["Authorization"] = f"Bearer {key}"
            task = (await client.post("/v1/tasks", json={"prompt": "hello"})).json()
            assert (await client.get("/api/v1/agents?token=word-in-a-query")).status_code == 401
            async with client.stream("GET", f"/v1/tasks/{task['id']}/stream") as stream:
                assert stream.status_code == 200
                serving.process.send_signal(signal.SIGTERM)
                text = "".join([part async for part in stream.aiter_text()])
            assert text.endswith(": the gateway is shutting down, connect again\n\n")
        async with asyncio.timeout(WITHIN_S):
            rest, _ = await serving.process.communicate()
        assert serving.process.returncode == 0
        written = "".join(serving.lines) + rest.decode()
        assert "/api/v1/agents" in written
        assert not any(secret in written for secret in (key.rpartition("_")[2], "word-in-a-query"))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--host", "0.0.0.0"], "can be reached by others"),
        (["--no-http", "--no-grpc"], "leave nothing to serve"),
        (["--host", "203.0.113.7"], "can be reached by others"),
        ([], "/nowhere/cert.pem"),
    ],
)
def test_what_cannot_be_served(
    arguments: list[str],
    problem: str,
    queue_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line that says what to do, and exit code 2."""
    if not arguments:
        monkeypatch.setenv("SHOAL_TLS_CERT", "/nowhere/cert.pem")
        monkeypatch.setenv("SHOAL_TLS_KEY", "/nowhere/key.pem")
    code = run(["serve", "--no-grpc", "--port", "0", "--queue", queue_url, *arguments])
    assert code == 2
    assert problem in capsys.readouterr().err


def test_a_port_that_is_taken_is_told() -> None:
    """With its address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadSetting, match=f"cannot listen on 127.0.0.1:{port}"):
            listening_socket(GatewaySettings(port=port))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_answers_are_not_held_back(host: str) -> None:
    """The event loop switches Nagle's algorithm off for sockets that say that they are TCP's."""
    with listening_socket(GatewaySettings(host=host, port=0)) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_workers_do_not_import_the_gateways_libraries() -> None:
    """Who runs `shoal worker` needs neither web server nor token library."""
    names = ("starlette", "uvicorn", "jwt")
    script = f"import sys, worker.cli.worker, worker.assembly; print([m for m in {names} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
