"""The manual's engine for an arq queue runs as it is printed."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from arq_fleets import LIMIT_S, echo, shoal_worker

from tests.servers import Server

MANUAL = Path(__file__).parents[2] / "docs" / "queue-backends.md"


async def test_the_printed_engine_gets_its_answer(valkey_server: Server, tmp_path: Path) -> None:
    """With a worker on arq's default queue, it prints the answer and what was used."""
    blocks = re.findall(r"^```python\n(.*?)^```", MANUAL.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (printed,) = [block for block in blocks if "from arq import create_pool" in block]
    engine = tmp_path / "engine.py"
    engine.write_text(printed)
    environment = {**os.environ, "REDIS_URL": valkey_server.url(), "PYTHONPATH": str(MANUAL.parents[1])}
    async with shoal_worker(f"arq+{valkey_server.url()}", echo), asyncio.timeout(LIMIT_S):
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(engine), env=environment, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
    assert (process.returncode, out.decode()) == (0, "you said Say hello. 10\n")
