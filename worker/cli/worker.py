"""`shoal worker`: work on the queue until stopped."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.failures import FAILED, OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.model_choice import with_model
from worker.cli.parameters import DURATION
from worker.errors import BadSetting
from worker.event_loop import loop_factory

if TYPE_CHECKING:
    from worker.fleet.link import SupervisorLink
    from worker.fleet.supervisor import Plan
    from worker.settings import Settings


@click.command(
    help="Work on the queue until stopped. SIGTERM or Ctrl-C: take no new task, finish the running ones within the "
    "grace period, hand the rest back. SIGHUP: read the settings anew.\n\n"
    + examples(
        "shoal worker --model claude-sonnet-4-5",
        "shoal worker --queue redis://localhost:6379 --concurrency 200",
        "AGENT_MODEL=gpt-4o TASK_QUEUE_URL=redis://redis:6379?stream=agents shoal worker",
        "shoal worker --config shoal.yaml --processes 4 --max-memory 1500",
    )
)
@click.option("--model", help="The model of the default agent.  [env: AGENT_MODEL]")
@click.option("--route", metavar="NAME", help="The default agent's route, instead of one model.  [env: SHOAL_ROUTE]")
@click.option("--provider", help="Its provider; default: found from the model.  [env: AGENT_PROVIDER]")
@click.option("--system", help="Its system prompt.  [env: AGENT_SYSTEM_PROMPT]")
@click.option("--concurrency", type=int, help="Tasks at once.  [env: AGENT_MAX_CONCURRENT_TASKS; default: 100]")
@click.option("--processes", type=int, help="Processes; health ports count up.  [env: SHOAL_PROCESSES; default: 1]")
@click.option(
    "--max-memory", type=int, help="MB above which a process is replaced.  [env: SHOAL_MAX_MEMORY_MB; default: 0, none]"
)
@click.option("--grace", "grace_s", type=DURATION, help="For running tasks after SIGTERM.  [env: SHOAL_GRACE_SECONDS]")
@click.option(
    "--health-port", type=int, help="For /healthz, /readyz, /metrics.  [env: SHOAL_HEALTH_PORT; default: 8080]"
)
@click.option(
    "--env-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    envvar="SHOAL_ENV_FILE",
    help="Variables that the environment does not set: NAME=value lines.  [env: SHOAL_ENV_FILE]",
)
@click.option("--log-level", help="debug, info, warning, error.  [env: SHOAL_LOG_LEVEL; default: info]")
@click.option("--log-format", help="auto, console, json.  [env: SHOAL_LOG_FORMAT; default: auto]")
@shoal_options
def worker(call: Invocation, **options: Any) -> int:
    """Exit code 0 after a drain; 1 if something did not end, and was left behind."""
    from worker.fleet.last_resort import SPARE_S, LastResort, closed_in_time, end_at_once
    from worker.fleet.link import SupervisorLink

    link = SupervisorLink.from_environment()
    inherited = dict(os.environ)

    def settings_now() -> Settings:
        return _settings(call, options, _environment(inherited, options["env_file"]))

    settings = settings_now()
    _configure_logging(settings)
    if not link.is_supervised and (settings.processes > 1 or settings.max_memory_mb):
        return _supervise(settings, settings_now)
    os.environ.update(_environment(inherited, options["env_file"]))  # providers and tools look for their keys there
    with closing(link):
        runner = asyncio.Runner(loop_factory=loop_factory())
        try:
            starts_anew = runner.run(_work(call, settings, link, settings_now))
        finally:
            has_ended = closed_in_time(runner)
            if not has_ended:  # whatever is raised is still to be said
                LastResort().within(SPARE_S)
    if starts_anew:
        os.execve(sys.executable, _command(sys.argv[1:]), inherited)  # noqa: S606 - ourselves, our own arguments
    if not has_ended:
        end_at_once(FAILED)
    return OK


def _environment(inherited: Mapping[str, str], env_file: Path | None) -> dict[str, str]:
    """The environment, with what the file adds to it. Raises `BadSetting`."""
    if env_file is None:
        return dict(inherited)
    from worker.settings.env_file import read_env_file

    return {**read_env_file(env_file), **inherited}


def _settings(call: Invocation, options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """The settings as they are now, checked for what a worker needs. Raises `BadSetting`."""
    settings = call.settings(
        {
            "agent.model": options["model"],
            "agent.provider": options["provider"],
            "agent.route": options["route"],
            "agent.system_prompt": options["system"],
            "concurrency": options["concurrency"],
            "processes": options["processes"],
            "max_memory_mb": options["max_memory"],
            "grace_s": options["grace_s"],
            "health_port": options["health_port"],
            "log_level": options["log_level"],
            "log_format": options["log_format"],
        },
        environ=environ,
    )
    settings.require_ark()
    agent = settings.agent
    if settings.queue_url and not (agent.model or agent.provider or agent.route or settings.agents):
        raise BadSetting("required env var AGENT_MODEL is not set")
    return settings


def _supervise(settings: Settings, reread: Callable[[], Settings]) -> int:
    from worker.fleet.supervisor import Supervisor

    supervisor = Supervisor(_plan(settings), _process_command, lambda: _plan(reread()))
    return asyncio.run(supervisor.run())


def _plan(settings: Settings) -> Plan:
    from worker.fleet.supervisor import Plan

    return Plan(
        processes=settings.processes,
        grace_s=settings.grace_s,
        max_memory_bytes=settings.max_memory_mb << 20,
        health_port=settings.health_port,
    )


def _process_command(index: int, plan: Plan) -> list[str]:
    """The command line of one process: ours, with one process and a health port of its own."""
    port = plan.health_ports[index] if index < plan.processes else 0
    return _command([*sys.argv[1:], "--processes", "1", "--health-port", str(port)])


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "worker.cli", *arguments]


def _configure_logging(settings: Settings) -> None:
    from worker.log import configure_logging

    pretty = {"console": True, "json": False}.get(settings.log_format)
    configure_logging(settings.log_level, pretty=pretty)


async def _work(call: Invocation, settings: Settings, link: SupervisorLink, check: Callable[[], Settings]) -> bool:
    from worker.assembly import run_worker

    if settings.agents and not (settings.agent.model or settings.agent.route):
        return await run_worker(settings, link=link, check_settings=check)
    async with with_model(settings, call.screen) as chosen:
        return await run_worker(chosen, link=link, check_settings=check)
