"""The demo: a real queue, two worker processes, agents with tools, streams in the terminal, and what it all cost.

Run it with `make demo`. It needs no API key and no server: the queue is the embedded Valkey; a small language model
that fits into a Python package answers some tasks; scripted turns call real tools in the others. With
ANTHROPIC_API_KEY, OPENAI_API_KEY or OPENAI_BASE_URL set, that model takes all tasks, tools included.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from display import Display, Job
from rich.console import Console
from weather_service import weather_service

from queue_backends import BackendOptions, Task
from worker import connect
from worker.client import Fleet
from worker.local_model import LocalModel

HERE = Path(__file__).parent
WORKERS = 2
LIMIT_S = 110.0

STORIES = [
    ("writer", "Write two sentences about a lighthouse keeper who befriends a whale."),
    ("writer", "Explain in two sentences why the sky is blue."),
    ("writer", "Name three uses of a paper clip."),
]
ERRANDS = [
    ("assistant", "What is the average temperature in Lisbon?"),
    ("assistant", "Compare the temperatures of three cities: Oslo, Nairobi and Atlantis."),
    ("assistant", "Tell me what time it is in Tokyo and in Lisbon."),
]
FAULT = ("assistant", "Answer over an unreliable connection.")


def chosen_model() -> dict[str, Any] | None:
    """The model that the environment offers, if it offers one."""
    if os.environ.get("ANTHROPIC_API_KEY"):
        return {"provider": "anthropic", "model": os.environ.get("AGENT_MODEL", "claude-sonnet-4-5")}
    if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        return {"provider": "openai", "model": os.environ.get("AGENT_MODEL", "gpt-4o-mini")}
    return None


def configuration(agents: Mapping[str, Any], weather_url: str, folder: Path) -> Path:
    """The workers' `shoal.yaml`. JSON is YAML too."""
    clock = shutil.which(
        "mcp-server-time", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    )
    settings = {
        "concurrency": 8,
        "health_port": 0,
        "log_level": "error",
        "agents": agents,
        "python_tools": [str(HERE / "tools.py")],
        "webhook_tools": [
            {
                "name": "temperatures",
                "description": "The last three temperatures measured in a city, in degrees Celsius.",
                "url": weather_url,
                "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            }
        ],
        "mcp_servers": [{"name": "clock", "command": clock, "args": ["--local-timezone", "UTC"]}] if clock else [],
    }
    path = folder / "shoal.yaml"
    path.write_text(json.dumps(settings, indent=2))
    return path


@asynccontextmanager
async def worker_processes(config: Path, queue_url: str) -> AsyncIterator[None]:
    """Two `shoal worker` processes; asked to leave at the end, as an orchestrator would ask them."""
    environment = {**os.environ, "SHOAL_CONFIG": str(config)}
    for variable in ("TASK_QUEUE_URL", "AGENT_MODEL", "AGENT_PROVIDER"):
        environment.pop(variable, None)
    command = [sys.executable, "-m", "worker.cli", "worker", "--queue", queue_url]
    processes = [await asyncio.create_subprocess_exec(*command, env=environment) for _ in range(WORKERS)]
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            async with asyncio.timeout(20):
                await asyncio.gather(*(process.wait() for process in processes))
        except TimeoutError:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()


async def watch(fleet: Fleet, job: Job, display: Display) -> None:
    """Submit one task, show its chunks as they come, then note its result."""
    started = time.monotonic()
    handle = await fleet.submit(Task(prompt=job.prompt, agent=job.agent))
    async for chunk in handle:
        display.show(job, chunk)
    job.result = await handle.result(timeout_s=10)
    job.seconds = time.monotonic() - started
    display.ended(job)


async def main() -> int:
    """The exit code: 0 if every task succeeded."""
    console = Console(highlight=False)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-demo-")))
        weather_url = stack.enter_context(weather_service())
        model = chosen_model()
        console.print("[bold]Shoal[/] · a fleet of workers for LLM agent tasks\n")
        scripted = {"provider": "scripted", "model": "scripted", "options": {"script": str(HERE / "script.yaml")}}
        agents: dict[str, Any] = {
            "assistant": {**(model or scripted), "system_prompt": "Answer briefly. Use your tools."}
        }
        work = list(ERRANDS)
        if model:
            console.print(f"• model      {model['model']} ({model['provider']}), from your environment")
            agents["writer"] = {**model, "tools": []}
            work += STORIES
        elif LocalModel.available():
            console.print("• model      SmolLM2-135M on this machine: small enough for a package, too small for tools")
            local = await stack.enter_async_context(LocalModel())
            agents["writer"] = {
                "provider": "openai",
                "model": "smollm2-135m",
                "base_url": local.base_url,
                "max_tokens": 70,
                "tools": [],
            }
            work += [*STORIES, FAULT]
        else:
            console.print(f"• model      none here ({LocalModel.missing()}): scripted turns only")
            work.append(FAULT)
        queue_url = f"embedded://{folder / 'queue'}"
        fleet = await stack.enter_async_context(connect(queue_url, options=BackendOptions(lease_s=10)))
        console.print("• queue      Valkey, embedded, on a private socket")
        console.print(f"• workers    {WORKERS} processes, 8 tasks at a time each")
        console.print("• tools      a Python function, a webhook, an MCP server over stdio\n")
        await stack.enter_async_context(worker_processes(configuration(agents, weather_url, folder), queue_url))
        jobs = [Job(number=number, agent=agent, prompt=prompt) for number, (agent, prompt) in enumerate(work, start=1)]
        display = stack.enter_context(Display(console, jobs))
        started = time.monotonic()
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(watch(fleet, job, display))
        display.summary(time.monotonic() - started)
    return 0 if all(job.result and job.result.ok for job in jobs) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
