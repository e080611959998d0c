"""How a frame of `shoal top` looks: the queue, the rates, the workers, the running tasks."""

from __future__ import annotations

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from queue_backends import QueueStats
from worker.cli.screen import Column, clean
from worker.cli.wording import count, duration, megabytes, moment, short_count, shorten, usd
from worker.fleet.monitor import Snapshot, oldest_tasks, per_minute, usd_per_hour
from worker.fleet.presence import Presence, RunningTask
from worker.known_cost import known_cost_usd

_WIDE = 130
"""From so many columns on, the tables have more of them."""
_HEAD_LINES = 11
"""At most so many lines of a frame are neither a worker nor a task."""
_LEAST_TASKS = 5
_NARROWEST = 12


def frame(
    snapshot: Snapshot, *, title: str, width: int, height: int | None = None, tasks: int = _LEAST_TASKS
) -> RenderableType:
    """One frame. With a `height`, both tables are cut so that it fits; else `tasks` limits the second one."""
    workers = len(snapshot.workers)
    if height is not None:
        room = max(height - _HEAD_LINES, 2)
        workers = max(min(workers, room - _LEAST_TASKS), 1)
        tasks = max(room - min(workers, len(snapshot.workers)), 1)
    is_wide = width >= _WIDE
    return Group(
        _first_line(snapshot, title, width),
        *([Text(clean(f"queue unavailable: {snapshot.problem}"), style="red")] if snapshot.problem else []),
        *(_queue_lines(snapshot.queue, is_wide=is_wide) if snapshot.queue else ()),
        _rates_line(snapshot, is_wide=is_wide),
        Text(""),
        _workers_table(snapshot, workers, width),
        Text(""),
        _tasks_table(snapshot, tasks, width),
    )


def _first_line(snapshot: Snapshot, title: str, width: int) -> Text:
    clock = moment(snapshot.at)
    line = Text(shorten(f"shoal top  {title}", width - len(clock) - 2), style="bold", no_wrap=True)
    line.append(" " * max(width - len(line) - len(clock), 1))
    line.append(clock, style="dim")
    return line


def _queue_lines(stats: QueueStats, *, is_wide: bool) -> list[Text]:
    figures = [
        _figure("ready", count(stats.ready), "bold" if stats.ready else ""),
        _figure("running", count(stats.running), "cyan" if stats.running else ""),
        _figure("delayed", count(stats.delayed), "yellow" if stats.delayed else ""),
        _figure("dead", count(stats.dead), "red" if stats.dead else ""),
    ]
    if stats.paused:
        figures.append(Text("PAUSED", style="bold yellow"))
    waiting = [_figure(priority.value, count(n)) for priority, n in stats.ready_by_priority.items() if n]
    if stats.oldest_ready_age_s is not None:
        waiting.append(_figure("oldest", duration(stats.oldest_ready_age_s)))
    if waiting:
        waiting[0] = Text.assemble(("waiting: ", "dim"), waiting[0])
    if is_wide or not waiting:
        return [_in_line(figures + waiting)]
    return [_in_line(figures), _in_line(waiting)]


def _rates_line(snapshot: Snapshot, *, is_wide: bool) -> Text:
    parts = [
        _figure("tasks/min", short_count(round(snapshot.tasks_per_minute))),
        _figure("tokens/min", short_count(round(snapshot.tokens_per_minute))),
        _figure("cost/h", usd(snapshot.cost_usd_per_hour)),
    ]
    if is_wide:
        busy = sum(worker.running for worker in snapshot.workers)
        slots = sum(worker.slots for worker in snapshot.workers)
        parts.insert(0, _figure("slots", f"{count(busy)}/{count(slots)}"))
    if today := snapshot.today:
        tokens = today.input_tokens + today.output_tokens
        parts.append(_figure("today", f"{short_count(tokens)} tokens, {usd(known_cost_usd(today))}"))
    return _in_line(parts)


def _in_line(parts: list[Text]) -> Text:
    return Text("   ").join(parts)


def _figure(name: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{name} ", "dim"), (value, style))


def _workers_table(snapshot: Snapshot, limit: int, width: int) -> RenderableType:
    workers, is_wide = snapshot.workers, width >= _WIDE
    if not workers:
        return Text("no worker is up: shoal worker", style="yellow")
    columns = [Column(f"workers {len(workers)}", wide=True)]
    columns += [Column(title, right=True) for title in ("pid", "running", "memory", "up", "tasks/min")]
    if is_wide:
        columns += [Column(title, right=True) for title in ("tokens/min", "cost/h", "done", "failed", "health")]
        columns += [Column("host", wide=True), Column("version")]
    columns.append(Column("state"))
    rows = [_worker_row(worker, snapshot.at, is_wide=is_wide) for worker in workers[:limit]]
    return _table(columns, rows, width, hidden=len(workers) - limit)


def _worker_row(worker: Presence, now: float, *, is_wide: bool) -> list[Text]:
    span = worker.last_minute
    row = [
        Text(clean(worker.id)),
        Text(str(worker.pid)),
        Text(f"{worker.running}/{worker.slots}", style="cyan" if worker.running else ""),
        Text(megabytes(worker.rss_bytes)),
        Text(_short(now - worker.started_at)),
        Text(short_count(round(per_minute(span, span.tasks)))),
    ]
    if is_wide:
        row += [
            Text(short_count(round(per_minute(span, span.tokens)))),
            Text(usd(usd_per_hour(span))),
            Text(count(worker.tasks_done)),
            Text(count(worker.tasks_failed), style="red" if worker.tasks_failed else "dim"),
            Text(str(worker.health_port) if worker.health_port else ""),
            Text(clean(worker.host)),
            Text(clean(worker.version)),
        ]
    return [*row, Text("draining", style="yellow") if worker.draining else Text("works", style="green")]


def _tasks_table(snapshot: Snapshot, limit: int, width: int) -> RenderableType:
    running = sum(worker.running for worker in snapshot.workers)
    shown = oldest_tasks(snapshot.workers, limit)
    if not shown:
        return Text("no task is running", style="dim")
    columns = [Column(f"tasks {count(running)}", wide=True), Column("agent", wide=True), Column("worker", wide=True)]
    columns.append(Column("for", right=True))
    if width >= _WIDE:
        columns.append(Column("since", right=True))
    rows = [_task_row(task, worker, snapshot.at, is_wide=width >= _WIDE) for task, worker in shown]
    return _table(columns, rows, width, hidden=running - len(shown))


def _task_row(task: RunningTask, worker: Presence, now: float, *, is_wide: bool) -> list[Text]:
    row = [
        Text(clean(task.id)),
        Text(clean(task.agent) or "-", style="" if task.agent else "dim"),
        Text(clean(worker.id), style="dim"),
        Text(_short(now - task.started_at)),
    ]
    return [*row, Text(moment(task.started_at), style="dim")] if is_wide else row


def _table(columns: list[Column], rows: list[list[Text]], width: int, *, hidden: int) -> RenderableType:
    """A table as wide as it must be; where there is no room, the wide columns are cut in their middle, the
    last one first."""
    widths = [max(len(column.title), *(len(row[index]) for row in rows)) for index, column in enumerate(columns)]
    surplus = sum(widths) + 2 * (len(columns) - 1) - width
    for index in reversed([index for index, column in enumerate(columns) if column.wide]):
        cut = max(0, min(surplus, widths[index] - _NARROWEST))
        widths[index] -= cut
        surplus -= cut
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column, room in zip(columns, widths, strict=True):
        justify: JustifyMethod = "right" if column.right else "left"
        table.add_column(column.title.upper(), justify=justify, no_wrap=True, width=room)
    for row in rows:
        table.add_row(*(_elided(cell, room) for cell, room in zip(row, widths, strict=True)))
    return Group(table, Text(f"… and {count(hidden)} more", style="dim")) if hidden > 0 else table


def _elided(cell: Text, room: int) -> Text:
    """The beginning and the end of a text: names of pods and workers differ there."""
    text = cell.plain
    if len(text) <= room:
        return cell
    end = (room - 1) // 2
    return Text(f"{text[: room - 1 - end]}…{text[len(text) - end :]}", style=cell.style)


def _short(seconds: float) -> str:
    """A duration in its largest unit, so that columns stay narrow."""
    return " ".join(duration(max(seconds, 0.0)).split()[:2])
