"""`shoal submit`: hand tasks to the workers."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from queue_backends import Priority, Task, WaitTimeout
from worker.cli.failures import FAILED, OK
from worker.cli.follow import follow
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.parameters import DURATION, MOMENT, PAIR
from worker.cli.screen import clean
from worker.cli.task_lines import read_task_lines
from worker.cli.wording import ending

if TYPE_CHECKING:
    from worker.client import Fleet, Handle

_BATCH = 500


class Order(Struct, frozen=True, kw_only=True):
    """What to submit and what to do then."""

    tasks: tuple[Task, ...]
    run_at: float | None
    follow: bool
    wait: bool
    timeout_s: float | None
    many: bool


@click.command(
    help="Hand a task to the workers and print its id.\n\n"
    + examples(
        'shoal submit "Summarise the news of today"',
        'shoal submit "Write a haiku" --agent poet --follow',
        'shoal submit "Nightly report" --at 02:00 --priority low --meta team=ops',
        "cat question.txt | shoal submit - --wait",
        'shoal submit --file many.jsonl          # one task a line: "text", or {"prompt": "text", "agent": "poet"}',
    )
)
@click.argument("prompt", required=False)
@click.option("--agent", default="", metavar="NAME", help="The agent that shall run it; default: the workers' own.")
@click.option("--model", default="", help="Another model than the agent's.")
@click.option("--route", default="", metavar="NAME", help="Another route for its model calls than the agent's.")
@click.option(
    "--priority", type=click.Choice([p.value for p in Priority]), default="normal", show_default=True, help="Its lane."
)
@click.option("--delay", "delay_s", type=DURATION, help="Start after this time, such as 90, 5m, 2h.")
@click.option("--at", "run_at", type=MOMENT, help="Start at this time: 2026-04-04T17:48:15Z, 17:30, Unix seconds.")
@click.option("--deadline", "deadline_s", type=DURATION, help="Give it up if it has not ended within this time.")
@click.option("--meta", type=PAIR, multiple=True, help="A note that the task carries. Repeatable.")
@click.option("--idempotency-key", default="", metavar="KEY", help="Submitting the same key twice adds one task.")
@click.option("--tenant", default="", help="On whose account it runs.")
@click.option("--session", "session_id", default="", metavar="ID", help="The conversation that it belongs to.")
@click.option(
    "--file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True), help="JSON lines."
)
@click.option("--follow", "-f", is_flag=True, help="Watch it until it has ended.")
@click.option("--wait", "-w", is_flag=True, help="Wait until it has ended and print its answer.")
@click.option("--timeout", "timeout_s", type=DURATION, help="With --wait: at most this long.")
@shoal_options
def submit(call: Invocation, prompt: str | None, **options: Any) -> int:
    """Exit code 1 if the task was awaited and failed, 2 if it cannot be a task."""
    return call.wait_for(_submit(call, _order(prompt, options)))


def _order(prompt: str | None, options: dict[str, Any]) -> Order:
    file: Path | None = options["file"]
    context = click.get_current_context()
    if (prompt is None) == (file is None):
        raise click.UsageError("give either a PROMPT (or - for stdin) or --file", context)
    if options["delay_s"] is not None and options["run_at"] is not None:
        raise click.UsageError("give either --delay or --at", context)
    if file is not None and (options["follow"] or options["wait"]):
        raise click.UsageError("--follow and --wait go with one PROMPT, not with --file", context)
    if file is not None and options["idempotency_key"]:
        raise click.UsageError("with --file, each line has its own idempotency_key", context)
    delay_s = options["delay_s"]
    common = _common_fields(options)
    if file is not None:
        tasks = tuple(read_task_lines(file, common))
    else:
        tasks = (Task(prompt=sys.stdin.read().strip() if prompt == "-" else str(prompt), **common),)
    return Order(
        tasks=tasks,
        run_at=options["run_at"] if delay_s is None else time.time() + delay_s,
        follow=options["follow"],
        wait=options["wait"],
        timeout_s=options["timeout_s"],
        many=file is not None,
    )


def _common_fields(options: dict[str, Any]) -> dict[str, Any]:
    """The task fields that the flags give."""
    fields: dict[str, Any] = {name: options[name] for name in ("agent", "tenant", "session_id", "idempotency_key")}
    fields["priority"] = Priority(options["priority"])
    fields["meta"] = dict(options["meta"])
    if overrides := {name: options[name] for name in ("model", "route") if options[name]}:
        fields["overrides"] = overrides
    if options["deadline_s"] is not None:
        fields["deadline"] = time.time() + options["deadline_s"]
    return fields


async def _submit(call: Invocation, order: Order) -> int:
    async with call.fleet() as fleet:
        if order.many:
            return await _submit_many(call, fleet, order)
        started_at = time.monotonic()
        handle = await fleet.submit(order.tasks[0], run_at=order.run_at)
        if order.follow:
            result = await follow(fleet, handle, call.screen, started_at=started_at)
            return OK if result.ok else FAILED
        if order.wait:
            return await _wait(call, handle, order.timeout_s, started_at)
    _print_id(call, handle.id)
    return OK


async def _wait(call: Invocation, handle: Handle, timeout_s: float | None, started_at: float) -> int:
    screen = call.screen
    try:
        result = await (handle.result() if timeout_s is None else handle.result(timeout_s))
    except (asyncio.CancelledError, WaitTimeout):
        screen.note(f"stopped waiting; the task goes on. To watch it: shoal tail {handle.id}", "warn")
        raise
    if screen.as_json:
        screen.json(result)
        return OK if result.ok else FAILED
    if result.ok:
        screen.line(clean(result.output) if screen.fancy else result.output)
    else:
        screen.note(f"error: {clean(result.error)}", "bad")
    screen.note(ending(result, elapsed_s=time.monotonic() - started_at))
    return OK if result.ok else FAILED


def _print_id(call: Invocation, task_id: str) -> None:
    if call.screen.as_json:
        call.screen.json({"id": task_id})
    else:
        call.screen.line(task_id)


async def _submit_many(call: Invocation, fleet: Fleet, order: Order) -> int:
    from worker.telemetry import inject

    for start in range(0, len(order.tasks), _BATCH):
        batch = [inject(task) for task in order.tasks[start : start + _BATCH]]
        ids = await fleet.backend.queue.submit_many(batch, run_at=order.run_at)
        for task_id in ids:
            _print_id(call, task_id)
    call.screen.note(f"{len(order.tasks)} tasks submitted")
    return OK
