"""Programs that we start and that must not outlive us: each under a warden of its own (`worker.warden`)."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path

from worker import warden

GRACE_S = 8.0
"""From SIGTERM to SIGKILL."""
STOP_WITHIN_S = GRACE_S + 2
"""What a warden needs for that."""
LONGEST_LINE = 64 * 1024
"""Of what is read line by line from a program."""


async def start_warded(
    program: Path,
    *,
    env: Mapping[str, str],
    grace_s: float = GRACE_S,
    takes_stderr: bool = False,
    owned_folder: str = "",
) -> asyncio.subprocess.Process:
    """Start a program in its own folder, and in a session of its own: Ctrl-C is for us, and it is told by us.

    Its standard output is ours to read, its standard error too if we take it. Its input is empty. `owned_folder` is
    deleted after its end, even if we are gone by then.
    """
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(Path(warden.__file__)), f"{grace_s:g}", str(program), owned_folder),
        cwd=program.parent,
        env=dict(env),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE if takes_stderr else None,
        limit=LONGEST_LINE,
        start_new_session=True,
    )


async def end_warded(process: asyncio.subprocess.Process, *, within_s: float = STOP_WITHIN_S) -> None:
    """End it in order, then by force. Its warden does so when we end in any other way."""
    if process.returncode is not None:
        return
    assert process.stdin is not None  # noqa: S101 - it was asked for
    process.stdin.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await process.wait()
            return
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def next_line(stream: asyncio.StreamReader | None) -> bytes:
    """The next line; empty at the end. Lines that are longer than any that we want are passed over."""
    assert stream is not None  # noqa: S101 - it was asked for
    while True:
        try:
            return await stream.readline()
        except ValueError:
            continue
