"""`shoal dead`: tasks that were given up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import click

from queue_backends import DeadLetter, TaskQueue
from worker.cli.failures import NOT_FOUND, OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Cell, Column
from worker.cli.wording import ago, shorten

_PAGE = 500


@click.group(help="Dead letters: tasks that were given up, and entries that could not be read.")
def dead() -> None:
    """The group; each command has its own options."""


@dead.command(
    "list", help="List dead letters, newest first.\n\n" + examples("shoal dead list", "shoal dead list --json")
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many.")
@shoal_options
def list_letters(call: Invocation, limit: int) -> int:
    """Show a table, or one JSON document a line."""
    return call.wait_for(_list(call, limit))


@dead.command(
    "requeue",
    help="Bring dead letters back as fresh tasks, with the same task ids.\n\n"
    + examples("shoal dead requeue 1775324999000-0", "shoal dead requeue --all"),
)
@click.argument("letter_ids", metavar="[LETTER...]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@shoal_options
def requeue(call: Invocation, letter_ids: tuple[str, ...], everything: bool) -> int:
    """Exit code 4 if one of the letters does not exist."""
    _check_choice(letter_ids, everything)
    return call.wait_for(_requeue(call, letter_ids))


@dead.command(
    "purge",
    help="Delete dead letters for good.\n\n"
    + examples("shoal dead purge 1775324999000-0", "shoal dead purge --all --yes"),
)
@click.argument("letter_ids", metavar="[LETTER...]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@shoal_options
def purge(call: Invocation, letter_ids: tuple[str, ...], everything: bool, yes: bool) -> int:
    """Exit code 4 if one of the letters does not exist."""
    _check_choice(letter_ids, everything)
    if everything and not yes:
        click.confirm("Delete all dead letters?", abort=True, err=True)
    return call.wait_for(_purge(call, letter_ids))


def _check_choice(letter_ids: Sequence[str], everything: bool) -> None:
    if bool(letter_ids) == everything:
        raise click.UsageError("name the letters (see: shoal dead list), or give --all", click.get_current_context())


async def _list(call: Invocation, limit: int) -> int:
    async with call.fleet() as fleet:
        letters = await fleet.backend.queue.dead_letters(limit=limit)
    if call.screen.as_json:
        for letter in letters:
            call.screen.json(letter)
        return OK
    columns = (
        Column("letter"),
        Column("task"),
        Column("died"),
        Column("attempt", right=True),
        Column("error", wide=True),
        Column("prompt", wide=True, style="dim"),
    )
    call.screen.table(columns, [_row(letter) for letter in letters], empty="no dead letters")
    return OK


def _row(letter: DeadLetter) -> tuple[str | Cell, ...]:
    return (
        letter.id,
        letter.task_id,
        ago(letter.dead_at),
        str(letter.attempt),
        Cell(shorten(letter.error, 80), "bad"),
        shorten(letter.prompt, 40),
    )


async def _requeue(call: Invocation, letter_ids: Sequence[str]) -> int:
    async with call.fleet() as fleet:
        queue = fleet.backend.queue
        if letter_ids:
            back = await queue.requeue(letter_ids)
        else:
            back = []
            await _for_all(queue, lambda ids: _collect(queue, ids, back))
    return _report(call, "requeued", len(back), letter_ids, _missing(letter_ids, len(back)))


async def _collect(queue: TaskQueue, ids: Sequence[str], back: list[str]) -> int:
    brought = await queue.requeue(ids)
    back += brought
    return len(brought)


async def _purge(call: Invocation, letter_ids: Sequence[str]) -> int:
    async with call.fleet() as fleet:
        queue = fleet.backend.queue
        if letter_ids:
            gone = await queue.purge(letter_ids)
        else:
            gone = await _for_all(queue, queue.purge)
    return _report(call, "purged", gone, letter_ids, _missing(letter_ids, gone))


def _missing(letter_ids: Sequence[str], found: int) -> list[str]:
    """Which of the named letters were not there: queues say how many were, and of which tasks."""
    wanted = sorted(set(letter_ids))
    if found >= len(wanted):
        return []
    return ["some of them"] if found else wanted


async def _for_all(queue: TaskQueue, act: Callable[[Sequence[str]], Awaitable[int]]) -> int:
    """Act on as many letters as there are now, page by page: what dies meanwhile could go on for ever.

    Returns how many changed.
    """
    left, total = (await queue.stats()).dead, 0
    while left > 0 and (letters := await queue.dead_letters(limit=min(_PAGE, left))):
        total += await act([letter.id for letter in letters])
        left -= len(letters)
    return total


def _report(call: Invocation, verb: str, done: int, asked: Sequence[str], missing: Sequence[str]) -> int:
    if call.screen.as_json:
        call.screen.json({verb: done})
    else:
        call.screen.line(f"{done} dead {'letter' if done == 1 else 'letters'} {verb}")
        if missing:
            call.screen.note(f"not there: {', '.join(missing)} (see: shoal dead list)", "bad")
    return NOT_FOUND if asked and missing else OK
