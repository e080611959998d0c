"""Commands that go on until they are told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any


async def until_told_to_stop(work: Coroutine[Any, Any, object]) -> None:
    """Do the work to its end, or until Ctrl-C or SIGTERM, which end it as a cancel does. Its errors are raised."""
    loop = asyncio.get_running_loop()
    working = loop.create_task(work)
    told = False

    def stop() -> None:
        nonlocal told
        told = True
        working.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await asyncio.wait([working])
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        working.cancel()
    if not (working.cancelled() and told):
        working.result()
