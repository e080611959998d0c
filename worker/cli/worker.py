"""`shoal worker`: work on the queue until stopped."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.model_choice import with_model
from worker.cli.parameters import DURATION
from worker.cli.processes import supervise, worker_commands
from worker.errors import BadSetting

if TYPE_CHECKING:
    from worker.settings import Settings


@click.command(
    help="Work on the queue until stopped. SIGTERM or Ctrl-C: take no new task, finish the running ones within the "
    "grace period, hand the rest back.\n\n"
    + examples(
        "shoal worker --model claude-sonnet-4-5",
        "shoal worker --queue redis://localhost:6379 --concurrency 200",
        "AGENT_MODEL=gpt-4o TASK_QUEUE_URL=redis://redis:6379?stream=agents shoal worker",
        "shoal worker --config shoal.yaml --health-port 8080",
    )
)
@click.option("--model", help="The model of the default agent.  [env: AGENT_MODEL]")
@click.option("--provider", help="Its provider; default: found from the model.  [env: AGENT_PROVIDER]")
@click.option("--system", help="Its system prompt.  [env: AGENT_SYSTEM_PROMPT]")
@click.option("--concurrency", type=int, help="Tasks at once.  [env: AGENT_MAX_CONCURRENT_TASKS; default: 100]")
@click.option("--processes", type=int, help="Processes; health ports count up.  [env: SHOAL_PROCESSES; default: 1]")
@click.option("--grace", "grace_s", type=DURATION, help="For running tasks after SIGTERM.  [env: SHOAL_GRACE_SECONDS]")
@click.option(
    "--health-port", type=int, help="For /healthz, /readyz, /metrics.  [env: SHOAL_HEALTH_PORT; default: 8080]"
)
@click.option("--log-level", help="debug, info, warning, error.  [env: SHOAL_LOG_LEVEL; default: info]")
@click.option("--log-format", help="auto, console, json.  [env: SHOAL_LOG_FORMAT; default: auto]")
@shoal_options
def worker(call: Invocation, **options: Any) -> int:
    """Exit code 0 after a drain."""
    settings = call.settings(
        {
            "agent.model": options["model"],
            "agent.provider": options["provider"],
            "agent.system_prompt": options["system"],
            "concurrency": options["concurrency"],
            "processes": options["processes"],
            "grace_s": options["grace_s"],
            "health_port": options["health_port"],
            "log_level": options["log_level"],
            "log_format": options["log_format"],
        }
    )
    settings.require_ark()
    if settings.queue_url and not settings.agent.model and not settings.agent.provider and not settings.agents:
        raise BadSetting("required env var AGENT_MODEL is not set")
    _configure_logging(settings)
    if settings.processes > 1:
        commands = worker_commands(sys.argv[1:], processes=settings.processes, health_port=settings.health_port)
        return asyncio.run(supervise(commands))
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_work(call, settings))
    return OK


def _configure_logging(settings: Settings) -> None:
    from worker.log import configure_logging

    pretty = {"console": True, "json": False}.get(settings.log_format)
    configure_logging(settings.log_level, pretty=pretty)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed; None: the standard one."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _work(call: Invocation, settings: Settings) -> None:
    from worker.assembly import run_worker

    if settings.agents and not settings.agent.model:
        await run_worker(settings)
        return
    async with with_model(settings, call.screen) as chosen:
        await run_worker(chosen)
