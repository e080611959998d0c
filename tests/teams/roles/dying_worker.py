"""A worker that kills itself (-9) right after it has submitted its first delegated task. Argument: the queue's URL."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from msgspec.structs import replace

from queue_backends import BackendOptions, Task, open_backend
from tests.teams.roles.team_fleet import worker_settings
from worker.assembly import open_worker


async def main(url: str) -> None:
    """Work until the first delegation."""
    settings = replace(worker_settings(slots=2), backend=BackendOptions(lease_s=0.3, max_deliveries=100))
    async with await open_backend(url, settings.backend) as backend:
        submit = backend.queue.submit

        async def submit_and_die(task: Task, **named: Any) -> str:
            task_id = await submit(task, **named)
            print(json.dumps({"submitted": task_id}), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
            return task_id

        backend.queue.submit = submit_and_die  # type: ignore[method-assign]  # that is what this worker is for
        async with open_worker(settings, backend):
            await asyncio.Event().wait()


asyncio.run(main(sys.argv[1]))
