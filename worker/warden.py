"""Runs one program in a process group of its own, and ends all of it when standard input closes: when whoever started
us is gone, however that came about, or wants it so.

Run as a script, by its path, with the standard library alone, so that it is up within a few milliseconds:

    warden.py GRACE_SECONDS PROGRAM [FOLDER]

A folder that is named is the program's own, and goes with it.
Its exit code is the program's, or 128 and the signal that ended it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

_LOOK_S = 0.05


def main(grace_s: float, program: str, folder: str = "") -> int:
    """Run it; returns the exit code."""
    child = subprocess.Popen([program], stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - the operator's choice
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the end of standard input counts
    is_told = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(child.pid, is_told), daemon=True).start()
    threading.Thread(target=_kill_late, args=(child.pid, is_told, grace_s), daemon=True).start()
    status = child.wait()
    _end_what_is_left(child.pid, grace_s)
    if folder:
        import shutil  # takes as long to import as all of the above

        shutil.rmtree(folder, ignore_errors=True)
    return status if status >= 0 else 128 - status


def _wait_for_the_end(group: int, is_told: threading.Event) -> None:
    while os.read(0, 1):
        continue
    is_told.set()
    _signal(group, signal.SIGTERM)


def _kill_late(group: int, is_told: threading.Event, grace_s: float) -> None:
    is_told.wait()
    time.sleep(grace_s)
    _signal(group, signal.SIGKILL)


def _end_what_is_left(group: int, grace_s: float) -> None:
    """A program that is a script may have ended before what it started."""
    until = time.monotonic() + grace_s
    _signal(group, signal.SIGTERM)
    while _signal(group, 0) and time.monotonic() < until:
        time.sleep(_LOOK_S)  # nothing tells of the end of processes that are not ours
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Whether there is anybody in the group."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    try:
        sys.exit(main(float(sys.argv[1]), *sys.argv[2:4]))
    except OSError as problem:
        sys.exit(f"{sys.argv[2]} cannot be started: {problem.strerror}")
