"""The process that owns an embedded server: starts it, restarts it, and ends it with its last user.

Run as a script, by its path, with the standard library alone, so that it is up within a few milliseconds:

    supervise.py SERVER_LOCK_FD FOLDER PROGRAM ARGUMENT...

Nobody cleans up after anybody here; the kernel does. Each user holds a shared `flock` on `users.lock` that disappears
with its process, however that ends. A watcher process sleeps in an exclusive `flock` on it, and its end tells the
supervisor that nobody is left. The exclusive lock is kept until the server is gone, so that a user that comes in
between waits and then starts a new one. `server.lock`, handed over by whoever started us, is held by us and by the
server: it is free exactly when neither is alive.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable

STOP_WITHIN_S = 30
"""A server that has not ended this long after SIGTERM is killed."""
QUICK_DEATH_S = 1.0
"""A server that lives shorter than this cannot work at all; starting it over and over would not help."""
LOG_LIMIT_BYTES = 1 << 20
_HANDLED = (signal.SIGTERM, signal.SIGALRM)
_PR_SET_PDEATHSIG = 1  # prctl(2)


class Supervisor:
    """Starts `command` and stays until it has ended for good."""

    def __init__(self, folder: str, command: list[str]) -> None:
        self._command = command
        self._users_fd = os.open(os.path.join(folder, "users.lock"), os.O_RDWR | os.O_CREAT, 0o600)  # noqa: PTH118 - pathlib takes longer to import than all else here
        self._alive_fd = _open_fifo(os.path.join(folder, "alive.fifo"))  # noqa: PTH118 - as above
        self._die_with_parent = _parent_death_signal()
        self._watcher_pid = 0
        self._server_pid = 0
        self._started_at = 0.0
        self._stopping = False

    def run(self, lock_fd: int) -> int:
        """Returns the exit status: 0 when the server was ended because nobody used it, else 1."""
        signal.signal(signal.SIGTERM, lambda _signal, _frame: self._stop())
        signal.signal(signal.SIGALRM, lambda _signal, _frame: self._kill_server())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._start_server()
        self._watcher_pid = self._fork(lambda: self._wait_until_unused(lock_fd), signal.SIGKILL)
        while True:
            pid, _status = os.wait()
            if pid == self._watcher_pid:
                self._stop()
            elif pid == self._server_pid:
                self._server_pid = 0
                if self._stopping:
                    return 0
                if time.monotonic() - self._started_at < QUICK_DEATH_S:
                    return 1
                self._start_server()

    def _start_server(self) -> None:
        self._started_at = time.monotonic()
        self._server_pid = self._fork(lambda: os.execv(self._command[0], self._command), signal.SIGTERM)  # noqa: S606 - our own program, no shell wanted
        if self._stopping:  # asked to while there was nothing to stop
            self._signal_server(signal.SIGTERM)

    def _wait_until_unused(self, lock_fd: int) -> None:
        os.close(lock_fd)  # else this process would keep `server.lock` taken
        os.close(self._alive_fd)
        fcntl.flock(self._users_fd, fcntl.LOCK_EX)  # held on by the supervisor, which shares the open file

    def _stop(self) -> None:
        self._stopping = True
        signal.alarm(STOP_WITHIN_S)
        self._signal_server(signal.SIGTERM)

    def _kill_server(self) -> None:
        self._signal_server(signal.SIGKILL)

    def _signal_server(self, number: signal.Signals) -> None:
        if self._server_pid:
            os.kill(self._server_pid, number)

    def _fork(self, body: Callable[[], object], death_signal: signal.Signals) -> int:
        parent = os.getpid()
        # Held back until the child has given up our handlers: a signal must end it, not be answered in our name.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return pid
        status = 1
        try:
            for number in _HANDLED:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._die_with_parent(death_signal)
            if os.getppid() == parent:  # else it died before we had asked to be told
                body()
                status = 0
        except OSError as error:
            print(f"supervisor: {error}", file=sys.stderr, flush=True)  # the log file
        finally:
            os._exit(status)


def _parent_death_signal() -> Callable[[int], None]:
    """A call that makes the kernel signal this process when its parent dies; nothing where the system has none."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None:
        return lambda _number: None
    return lambda number: prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _open_fifo(path: str) -> int:
    if not os.path.exists(path):  # noqa: PTH110 - as above; `server.lock` is ours, so nobody else makes it now
        os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR)  # for both, or opening would wait for a reader


def _redirect_to_log(path: str) -> None:
    if os.path.exists(path) and os.path.getsize(path) > LOG_LIMIT_BYTES:  # noqa: PTH110, PTH202 - as above
        os.replace(path, path + ".1")  # noqa: PTH105 - as above
    log_fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null_fd = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null_fd), (1, log_fd), (2, log_fd)):
        os.dup2(source, target)
    os.close(log_fd)
    os.close(null_fd)


def main() -> int:
    """Detach from whoever started us, then supervise."""
    lock_fd, folder, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    os.umask(0o077)
    os.chdir(folder)
    _redirect_to_log("valkey.log")
    if os.fork():  # the starter reaps this process at once, and is not the parent of the other one
        os._exit(0)
    os.set_inheritable(lock_fd, True)
    return Supervisor(folder, command).run(lock_fd)


if __name__ == "__main__":
    sys.exit(main())
