"""One user's hold on the server of a folder: start it or join it, keep it, let go."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from queue_backends.embedded import supervise
from queue_backends.embedded.binary import find_server
from queue_backends.embedded.folder import ServerFolder
from queue_backends.errors import BackendMisconfigured, BackendUnavailable, QueueError

START_TIMEOUT_S = 30.0
LOADING_TIMEOUT_S = 600.0
"""A server that answers that it still reads its data is waited for this long: it gets there, so leaving is worse."""
_ANSWER_TIMEOUT_S = 1.0
_PAUSE_S = 0.01
"""Between two looks at a lock or a socket: `flock` knows no time limit, and a starting server sends no notice."""
_RETRY_PAUSE_S = 1.0

_log = logging.getLogger(__name__)


class EmbeddedServer:
    """A running server that this process uses, together with any others. Close it, or end: both let go of it."""

    def __init__(self, folder: ServerFolder, users_fd: int) -> None:
        self.folder = folder
        self._users_fd = users_fd
        self._guard: asyncio.Task[None] | None = None

    @property
    def socket(self) -> Path:
        """The Unix socket that the server listens on."""
        return self.folder.socket

    @classmethod
    async def open(cls, data_dir: Path, *, timeout_s: float = START_TIMEOUT_S) -> EmbeddedServer:
        """Join the server of `data_dir`, or start it; returns when it answers.

        Raises `BackendMisconfigured` if there is no server program or no private folder, `BackendUnavailable` with
        the server's own last words if it does not come up.
        """
        stop = threading.Event()
        work = asyncio.ensure_future(asyncio.to_thread(_join, data_dir, timeout_s, stop))
        try:
            folder, users_fd = await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.set()  # the thread sees it within a moment; waited for, so that no lock outlives this call
            work.add_done_callback(_let_go)
            await asyncio.wait([work])
            raise
        server = cls(folder, users_fd)
        server._guard = asyncio.create_task(server._revive(), name="embedded-server-guard")
        return server

    async def close(self) -> None:
        """Let go of the server; it ends if this was its last user. Closing twice does nothing."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        guard.cancel()
        await asyncio.wait([guard])
        os.close(self._users_fd)  # not LOCK_UN: that would take the lock from forked children too

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _revive(self) -> None:
        """Bring the server back when its supervisor was killed: no other process would, while users are left."""
        while True:
            with _writer_gone(self.folder.alive_fifo) as gone:  # opened before the look, so that no end is missed
                stop = threading.Event()
                try:
                    await asyncio.to_thread(_ensure_running, self.folder, time.monotonic() + START_TIMEOUT_S, stop)
                    await gone.wait()
                except QueueError as error:
                    _log.warning("embedded server cannot be restarted yet: %s", error)
                    await asyncio.sleep(_RETRY_PAUSE_S)
                finally:
                    stop.set()


@contextlib.contextmanager
def _writer_gone(fifo: Path) -> Iterator[asyncio.Event]:
    """An event that is set once nobody has the FIFO open for writing any more."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    def notice() -> None:  # nothing is ever written: readable means end of file, and would go on to be told
        loop.remove_reader(reader)
        gone.set()

    try:
        loop.add_reader(reader, notice)
        yield gone
    finally:
        loop.remove_reader(reader)
        os.close(reader)


def _let_go(work: asyncio.Future[tuple[ServerFolder, int]]) -> None:
    if not work.cancelled() and work.exception() is None:
        os.close(work.result()[1])


def _join(data_dir: Path, timeout_s: float, stop: threading.Event) -> tuple[ServerFolder, int]:
    """Become a user, then see to it that there is a server. Returns the folder and the lock that makes us a user."""
    deadline = time.monotonic() + timeout_s
    folder = ServerFolder.prepare(data_dir)
    users_fd = os.open(folder.users_lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while not _try_lock(users_fd, fcntl.LOCK_SH):  # taken while a server is ending
            _pause(folder, deadline, stop)
        _ensure_running(folder, deadline, stop)
    except BaseException:
        os.close(users_fd)
        raise
    return folder, users_fd


def _ensure_running(folder: ServerFolder, deadline: float, stop: threading.Event) -> None:
    log_start: int | None = None
    loading_deadline = time.monotonic() + LOADING_TIMEOUT_S
    while (answer := _ask(folder.socket, b"PING")) != b"+PONG" or not _is_supervised(folder):
        if answer.startswith(b"-LOADING"):
            _pause(folder, loading_deadline, stop)
            continue
        if answer and sys.platform != "linux":  # there the kernel does not end a server whose supervisor was killed
            _ask(folder.socket, b"SHUTDOWN")
        lock_fd = os.open(folder.server_lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if _try_lock(lock_fd, fcntl.LOCK_EX):
                if log_start is not None:
                    raise BackendUnavailable(f"the embedded server ended at once: {_last_words(folder, log_start)}")
                log_start = folder.log.stat().st_size if folder.log.exists() else 0
                _spawn(folder, lock_fd)
        finally:
            os.close(lock_fd)
        _pause(folder, deadline, stop)


def _spawn(folder: ServerFolder, lock_fd: int) -> None:
    command = [
        *(sys.executable, "-I", "-S", supervise.__file__, str(lock_fd), str(folder.path)),
        *(str(find_server()), *_server_options(folder)),
    ]
    try:
        subprocess.run(  # noqa: S603 - every argument is ours
            command,
            env=_environment(),
            pass_fds=(lock_fd,),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=START_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or b""
        reason = said.decode(errors="replace").strip().rpartition("\n")[2] or str(error)
        raise BackendUnavailable(f"cannot start the embedded server's supervisor: {reason}") from error


def _server_options(folder: ServerFolder) -> list[str]:
    """No network, everything on disk within a second, no memory limit: a queue must never evict."""
    return [
        *("--port", "0", "--unixsocket", str(folder.socket), "--unixsocketperm", "700"),
        *("--dir", str(folder.path), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        *("--maxmemory", "0", "--daemonize", "no", "--databases", "1"),
        *("--logfile", str(folder.log), "--loglevel", "notice"),
    ]


def _environment() -> dict[str, str]:
    """What a server may need of ours. API keys are not among it."""
    names = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")
    return {name: os.environ[name] for name in names if name in os.environ}


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise BackendMisconfigured(
            f"the embedded queue's folder is on a file system without locks ({error.strerror}): "
            "set SHOAL_DATA_DIR to a local folder"
        ) from error
    return True


def _ask(path: Path, command: bytes) -> bytes:
    """The first line of the server's answer; empty if there is none."""
    with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
        connection.settimeout(_ANSWER_TIMEOUT_S)
        connection.connect(os.fspath(path))
        connection.sendall(command + b"\r\n")
        return connection.recv(256).partition(b"\r\n")[0]
    return b""


def _is_supervised(folder: ServerFolder) -> bool:
    """Whether the server has its supervisor. One that has lost it may still answer, but is about to end."""
    try:
        reader = os.open(folder.alive_fifo, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        os.read(reader, 1)  # nothing is ever written, so this is the end of file: nobody is there who could
    except BlockingIOError:
        return True
    finally:
        os.close(reader)
    return False


def _pause(folder: ServerFolder, deadline: float, stop: threading.Event) -> None:
    if stop.wait(_PAUSE_S) or time.monotonic() > deadline:
        raise BackendUnavailable(f"the embedded server in {folder.path} did not answer in time: see {folder.log}")


def _last_words(folder: ServerFolder, log_start: int) -> str:
    """The last lines that the log gained since `log_start`; the whole tail if it was begun anew."""
    with contextlib.suppress(OSError):
        said = folder.log.read_bytes()
        lines = said[log_start if log_start <= len(said) else 0 :].decode(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-5:] if line.strip()) or f"see {folder.log}"
    return f"see {folder.log}"
