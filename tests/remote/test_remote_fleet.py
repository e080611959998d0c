"""Real processes: `shoal serve`, a worker and a provider, which is configured, falls ill, is killed and comes back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from queue_backends import Backend, Task, TaskResult
from tests.remote.conftest import LIMIT_S
from worker.live_settings import LiveSettings
from worker.remote_providers import RemoteDirectory

ROOT = Path(__file__).parents[2]
PARROT = ROOT / "examples" / "remote_provider.py"


class Program:
    """A process of ours, and what it writes on stdout."""

    def __init__(self, *command: str, environ: dict[str, str]) -> None:
        self._command = command
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MIRASTACK_")}
        self._environ = {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environ}
        self.process: asyncio.subprocess.Process | None = None
        self.lines: list[str] = []

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self._environ, limit=1 << 20
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(signal.SIGKILL)
        if error is not None:
            sys.stderr.write("".join(self.lines[-30:]))

    async def line_with(self, text: str) -> str:
        """Wait for a line that has this in it."""
        assert self.process is not None
        assert self.process.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line)
                if text in line:
                    return line
        raise AssertionError(f"it ended without {text!r}:\n{''.join(self.lines)}")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, and return its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(LIMIT_S):
            rest, _ = await self.process.communicate()
        self.lines.append(rest.decode())
        assert self.process.returncode is not None
        return self.process.returncode


def shoal(*arguments: str, queue_url: str, **environ: str) -> Program:
    """A `shoal` command with quick health checks and retries, on the test's queue."""
    around = {
        "TASK_QUEUE_URL": queue_url,
        "SHOAL_PLUGINS_HEALTH_CHECK_INTERVAL": "300ms",
        "SHOAL_PLUGINS_HEARTBEAT_INTERVAL": "2s",
        "SHOAL_LOG_FORMAT": "json",
        "SHOAL_HTTP_PORT": "0",
        **environ,
    }
    return Program(sys.executable, "-m", "worker.cli", *arguments, environ=around)


async def address_of(engine: Program) -> str:
    """Where a started `shoal serve` takes in plugins."""
    line = await engine.line_with("plugins may register")
    return str(json.loads(line)["address"])


def parrot(engine: str) -> Program:
    """The example provider, told of an engine."""
    return Program(sys.executable, str(PARROT), environ={"MIRASTACK_ENGINE_ADDR": engine})


@asynccontextmanager
async def fleet(queue_url: str, stack: AsyncExitStack) -> AsyncIterator[tuple[str, Program]]:
    """An engine and a worker; gives the engine's address, and the engine."""
    engine = await stack.enter_async_context(shoal("serve", "--grpc-port", "0", queue_url=queue_url))
    address = await address_of(engine)
    worker = shoal(
        *("worker", "--provider", "parrot", "--model", "parrot-1", "--health-port", "0"),
        queue_url=queue_url,
        SHOAL_RETRY_BASE_SECONDS="0.2",
        SHOAL_RETRY_MAX_SECONDS="0.5",
        AGENT_MAX_RETRIES="100",
    )
    running = await stack.enter_async_context(worker)
    await running.line_with("agent runtime started")
    yield address, engine


async def answered(backend: Backend, prompt: str) -> TaskResult:
    """Hand in a task and wait for its result."""
    return await backend.queue.wait(await backend.queue.submit(Task(prompt=prompt)), LIMIT_S)


async def seen(directory: RemoteDirectory, *, healthy: bool, but_not: str = "") -> str:
    """Wait until some process of the parrot, another one than that, is in this state of health; gives its id."""
    found: list[str] = []

    def is_seen() -> bool:
        others = (each for each in directory.instances("parrot") if each.instance_id != but_not)
        found[:] = [each.instance_id for each in others if each.healthy is healthy]
        return bool(found)

    await shown(directory, is_seen)
    return found[0]


async def gone(directory: RemoteDirectory, instance_id: str) -> None:
    """Wait until that process of the parrot is not registered."""
    await shown(directory, lambda: all(each.instance_id != instance_id for each in directory.instances("parrot")))


async def shown(directory: RemoteDirectory, condition: Callable[[], bool]) -> None:
    """Wait until the directory shows it."""
    changed = asyncio.Event()
    forget = directory.on_change(changed.set)
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            changed.clear()
            await changed.wait()
    forget()


async def ended(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    over, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(descriptor, over.set)
    try:
        async with asyncio.timeout(LIMIT_S):
            await over.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def test_provider_process_lives_dies_and_comes_back(queue_url: str, backend: Backend) -> None:
    """Registered, used, configured, ill, well again, killed, back, gone: every step is seen by a worker in another
    process, without a restart, and no task fails."""
    async with AsyncExitStack() as stack:
        directory = await stack.enter_async_context(RemoteDirectory(backend.state))
        live = await stack.enter_async_context(LiveSettings(backend.state))
        address, engine = await stack.enter_async_context(fleet(queue_url, stack))

        first = await stack.enter_async_context(parrot(address))
        first_id = await seen(directory, healthy=True)
        result = await answered(backend, "hello there")
        assert (result.output, result.error) == ("You said: hello there ", "")
        assert (result.usage.input_tokens, result.usage.output_tokens) == (2, 4)

        await live.set("plugin.parrot.greeting", "I heard:")
        while (result := await answered(backend, "hello")).output != "I heard: hello ":
            assert result.output == "You said: hello "

        await live.set("plugin.parrot.mood", "ill")
        await seen(directory, healthy=False)
        waiting = await backend.queue.submit(Task(prompt="are you well?"))
        await live.set("plugin.parrot.mood", "fine")
        await seen(directory, healthy=True)
        assert (await backend.queue.wait(waiting, LIMIT_S)).output == "I heard: are you well? "

        await first.stop(signal.SIGKILL)
        waiting = await backend.queue.submit(Task(prompt="still there?"))
        second = await stack.enter_async_context(parrot(address))
        assert (await backend.queue.wait(waiting, LIMIT_S)).output == "I heard: still there? "
        second_id = await seen(directory, healthy=True, but_not=first_id)

        assert await second.stop() == 0
        await gone(directory, second_id)
        assert await engine.stop() == 0


async def test_providers_in_a_folder_live_and_die_with_the_engine(
    queue_url: str, backend: Backend, tmp_path: Path
) -> None:
    """An executable in `plugins.dir` is started, restarted after a crash, and ended with `shoal serve`, also with one
    that is killed; so is what a script has started."""
    program, pid_file = tmp_path / "parrot" / "run", tmp_path / "pid"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n"{sys.executable}" "{PARROT}" &\necho $! > "{pid_file}"\nwait $!\n')
    program.chmod(0o755)
    command = ("serve", "--grpc-port", "0", "--plugins-dir", str(tmp_path))
    async with AsyncExitStack() as stack:
        directory = await stack.enter_async_context(RemoteDirectory(backend.state))
        engine = await stack.enter_async_context(shoal(*command, queue_url=queue_url))
        before = await seen(directory, healthy=True)
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        after = await seen(directory, healthy=True, but_not=before)
        pid = int(pid_file.read_text())
        assert await engine.stop() == 0
        await gone(directory, after)
        await ended(pid)

        engine = await stack.enter_async_context(shoal(*command, queue_url=queue_url))
        third = await seen(directory, healthy=True, but_not=before)
        assert third != after
        pid = int(pid_file.read_text())
        await engine.stop(signal.SIGKILL)
        await ended(pid)


async def test_built_in_provider_is_served_by_the_command_line(queue_url: str, backend: Backend) -> None:
    """`shoal provider serve`, registered with a worker that is an engine, too."""
    async with AsyncExitStack() as stack:
        directory = await stack.enter_async_context(RemoteDirectory(backend.state))
        worker = shoal(
            *("worker", "--provider", "parrot", "--model", "mock", "--health-port", "0"),
            queue_url=queue_url,
            SHOAL_PLUGINS_ON_WORKER="1",
            SHOAL_GRPC_ADDR="127.0.0.1:0",
        )
        running = await stack.enter_async_context(worker)
        address = json.loads(await running.line_with("plugins may register"))["address"]
        command = ("provider", "serve", "mock", "--as", "parrot")
        served = shoal(*command, queue_url=queue_url, MIRASTACK_ENGINE_ADDR=address)
        await stack.enter_async_context(served)
        await seen(directory, healthy=True)
        assert (await answered(backend, "hi")).output == "mock response"
