"""How a run looks on a terminal: its steps with what they are at, cut so that it fits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from rich.cells import cell_len

from worker.cli.live_area import Line, Span, cut, fit, last_lines, pad
from worker.cli.plain_watch import one_line, retry_text
from worker.cli.stream_tails import Tail
from worker.cli.wording import count, duration, usd
from worker.teams.plan import Plan, Step, Team
from worker.teams.run_state import ChildState, Phase, RunState, StepState

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_GLYPHS: dict[Phase, Span] = {
    Phase.PENDING: ("·", "dim"),
    Phase.WAITING: ("?", "warn"),
    Phase.SUCCEEDED: ("✓", "good"),
    Phase.FAILED: ("✗", "bad"),
    Phase.SKIPPED: ("-", "dim"),
    Phase.CANCELLED: ("✗", "warn"),
}
_WIDEST_NAME = 28
_TAIL_LINES = 3
_DETAILS_FROM = 56
"""From so many columns on, a row says who does the step and with which model."""
_COST_FROM = 44
DEEPEST = 6
"""Runs within runs are shown down to here: two plans can name each other."""


class Nested(NamedTuple):
    """A run that fulfils a step of another."""

    plan: Plan
    state: RunState


class Row(NamedTuple):
    """A step or a delegated task, before it is known how much room there is."""

    depth: int
    phase: Phase
    name: str
    note: str
    """Behind the name: iteration and try."""
    who: str
    figures: tuple[str, str, str]
    """Tokens, cost, time."""
    below: tuple[Span, ...]
    """Lines under it that always stay: why it failed, how to answer."""
    tail: Tail | None
    reserve: int = 0
    """Columns that `who` may take at another moment: so that the figures stand still."""


def tree(
    plan: Plan,
    state: RunState,
    *,
    width: int,
    height: int,
    now: float,
    tails: Mapping[str, Tail] | None = None,
    nested: Mapping[str, Nested] | None = None,
    asking: Collection[str] = (),
    is_final: bool = False,
) -> list[Line]:
    """The picture of a run. With `is_final`, nothing moves in it any more and all rows are there. `asking`: tasks that
    wait for a person."""
    rows = _Rows(nested or {}, {} if is_final else tails or {}, asking, now).of(plan.find(state.team), state, 0)
    head, foot = _head(state, width), _foot(state, now)
    if is_final:
        return [head, *(line for row in rows for line in _lines(row, _Widths(rows, width), now, 0)), foot]
    room = max(height - 3, 1)
    return [head, *_fitting(rows, width, room, now), foot]


class _Rows:
    """Makes the rows of a run and of the runs within it."""

    def __init__(
        self, nested: Mapping[str, Nested], tails: Mapping[str, Tail], asking: Collection[str], now: float
    ) -> None:
        self._nested = nested
        self._tails = tails
        self._asking = asking
        self._now = now

    def of(self, team: Team, state: RunState, depth: int) -> list[Row]:
        rows: list[Row] = []
        for step in state.steps:
            rows.append(self._step(team, state, step, depth))
            children = [child for child in state.children if child.step == step.name]
            known = {child.task_id for child in children}
            tops = [child for child in children if child.parent not in known]
            for child in tops:
                rows += self._child(child, children, depth + 1)
            if (inner := self._nested.get(step.run_id)) is not None and depth < DEEPEST:
                rows += self.of(inner.plan.find(inner.state.team), inner.state, depth + 1)
        return rows

    def _step(self, team: Team, state: RunState, step: StepState, depth: int) -> Row:
        planned = next((each for each in team.steps if each.name == step.name), None)
        is_busy = step.phase in (Phase.RUNNING, Phase.VALIDATING)
        return Row(
            depth=depth,
            phase=self._phase(step),
            name=one_line(step.name),
            note=_note(planned, step),
            who=_who(team, planned, step, state),
            figures=_figures(step, self._now),
            below=tuple(_below(step)),
            tail=self._tails.get(step.task_id) if is_busy else None,
            reserve=0 if state.phase.is_final or planned is None else cell_len(_after(planned.depends_on)),
        )

    def _phase(self, of: StepState | ChildState) -> Phase:
        return Phase.WAITING if of.task_id in self._asking and not of.phase.is_final else of.phase

    def _child(self, child: ChildState, children: Sequence[ChildState], depth: int) -> list[Row]:
        is_busy = not child.phase.is_final
        row = Row(
            depth=depth,
            phase=self._phase(child),
            name=one_line(child.role),
            note="",
            who=one_line(child.prompt),
            figures=_figures(child, self._now),
            below=((one_line(child.error), "bad"),) if child.error else (),
            tail=self._tails.get(child.task_id) if is_busy else None,
        )
        rows = [row]
        for each in children:
            if each.parent == child.task_id and depth < DEEPEST:
                rows += self._child(each, children, depth + 1)
        return rows


def _note(planned: Step | None, step: StepState) -> str:
    parts = []
    if planned is not None and planned.loop is not None and step.iteration:
        parts.append(f"{step.iteration}/{planned.loop.max_iterations}")
    if step.phase is Phase.VALIDATING:
        parts.append("checking")
    if step.tries > 1 and not step.phase.is_final:
        parts.append(f"try {step.tries}")
    if step.validated:
        parts.append("validated")
    return " ".join(parts)


def _who(team: Team, planned: Step | None, step: StepState, state: RunState) -> str:
    if step.phase is Phase.PENDING and planned is not None and not step.iteration:
        waits_for = [name for name in planned.depends_on if not _is_over(state, name)]
        return _after(waits_for)
    if step.phase is Phase.SKIPPED:
        return one_line(step.message)
    name = step.role or (planned.role if planned is not None else "")
    role = team.role(name)
    model = (planned.model if planned is not None else "") or (role.config.model if role is not None else "")
    parts = [name if name != step.name else "", role.agent if role is not None else "", model]
    if role is not None and role.team:
        parts.append(f"team {role.team}")
    return " · ".join(one_line(part) for part in parts if part)


def _after(names: Sequence[str]) -> str:
    return f"after {', '.join(map(one_line, names))}" if names else ""


def _is_over(state: RunState, name: str) -> bool:
    return any(step.name == name and step.phase.is_final for step in state.steps)


def _figures(step: StepState | ChildState, now: float) -> tuple[str, str, str]:
    tokens = count(step.usage.total_tokens) if step.usage.total_tokens else ""
    cost = usd(step.cost_usd) if step.cost_usd else ""
    if not step.started_at or step.phase is Phase.PENDING:
        return tokens, cost, ""
    return tokens, cost, duration((step.ended_at or now) - step.started_at)


def _below(step: StepState) -> list[Span]:
    if step.phase is Phase.WAITING and step.approval_id:
        return [(f"waits for approval: shoal approve {step.approval_id}", "warn")]
    if step.phase is Phase.FAILED and step.message:
        return [(one_line(step.message), "bad")]
    if step.tries > 1 and not step.phase.is_final:
        return [(retry_text(step), "warn")]
    return []


class _Widths:
    """How the columns share a row."""

    def __init__(self, rows: Sequence[Row], width: int) -> None:
        self.whole = max(width, 8)
        self.name = min(max((2 * row.depth + cell_len(_title(row)) for row in rows), default=0), _WIDEST_NAME)
        self.figures = tuple(max((len(row.figures[index]) for row in rows), default=0) for index in range(3))
        if width < _COST_FROM:
            self.figures = (0, 0, self.figures[2])
        taken = 2 + self.name + sum(size + 2 for size in self.figures if size)
        widest = max((max(cell_len(row.who), row.reserve) for row in rows), default=0)
        self.who = min(max(self.whole - taken - 2, 0), widest) if width >= _DETAILS_FROM else 0
        if not self.who:
            self.name = max(min(self.name, self.whole - taken + self.name), 6)


def _title(row: Row) -> str:
    return f"{row.name} {row.note}" if row.note else row.name


def _fitting(rows: Sequence[Row], width: int, room: int, now: float) -> list[Line]:
    """As much as there is room for: first without the streams' tails, then without what has ended or waits its turn."""
    widths = _Widths(rows, width)
    for tail_lines in range(_TAIL_LINES, -1, -1):
        lines = [line for row in rows for line in _lines(row, widths, now, tail_lines)]
        if len(lines) <= room:
            return lines
    return _summarised(rows, widths, room, now)


def _summarised(rows: Sequence[Row], widths: _Widths, room: int, now: float) -> list[Line]:
    """The most interesting rows, and a line that counts the others."""
    shown, height = list(rows), sum(1 + len(row.below) for row in rows) + 1
    ended = [row for row in rows if row.phase.is_final]
    waiting = [row for row in reversed(rows) if row.phase is Phase.PENDING]
    busy = [row for row in reversed(rows) if not row.phase.is_final and row.phase is not Phase.PENDING]
    failed = [row for row in ended if row.phase is Phase.FAILED]
    for row in [*(row for row in ended if row not in failed), *waiting, *failed, *busy[:-1]]:
        if height <= room:
            break
        shown.remove(row)
        height -= 1 + len(row.below)
    lines = [line for row in shown for line in _lines(row, widths, now, 0)]
    return [*lines[: max(room - 1, 0)], _others([row for row in rows if row not in shown])]


def _others(hidden: Sequence[Row]) -> Line:
    counts = {
        "ended": sum(row.phase.is_final for row in hidden),
        "running": sum(not row.phase.is_final and row.phase is not Phase.PENDING for row in hidden),
        "waiting": sum(row.phase is Phase.PENDING for row in hidden),
    }
    return (("  … " + ", ".join(f"{count(number)} {kind}" for kind, number in counts.items() if number), "dim"),)


def _lines(row: Row, widths: _Widths, now: float, tail_lines: int) -> list[Line]:
    indent = "  " * row.depth
    lines: list[Line] = [_row_line(row, indent, widths, now)]
    below = f"{indent}    "
    room = max(widths.whole - len(below), 8)
    lines += [((below, ""), (cut(text, room), style)) for text, style in row.below]
    if row.tail is not None:
        style = "dim"
        lines += [((f"{below}│ ", "dim"), (text, style)) for text in last_lines(row.tail.text, room - 2, tail_lines)]
    return lines


def _row_line(row: Row, indent: str, widths: _Widths, now: float) -> Line:
    glyph = _GLYPHS.get(row.phase) or (_SPINNER[int(now * 8) % len(_SPINNER)], "tool")
    style = "dim" if row.phase in (Phase.PENDING, Phase.SKIPPED) else "bold" if row.phase not in _GLYPHS else ""
    room = max(widths.name - len(indent), 4)
    spans: list[Span] = [(f"{indent}", ""), glyph, (" ", "")]
    title = cut(_title(row), room)
    name, note = (title, "") if not title.startswith(f"{row.name} ") else (row.name, title[len(row.name) :])
    spans += [(name, style), (pad(note, room - cell_len(name)), "dim")]
    if widths.who:
        spans.append((f"  {pad(cut(row.who, widths.who), widths.who)}", "dim"))
    for text, size in zip(row.figures, widths.figures, strict=True):
        if size:
            spans.append((f"  {pad(text, size, right=True)}", "" if text else "dim"))
    return _stripped(spans)


def _stripped(spans: Sequence[Span]) -> Line:
    kept = list(spans)
    while kept and not kept[-1][0].strip():
        kept.pop()
    if kept:
        kept[-1] = (kept[-1][0].rstrip(), kept[-1][1])
    return tuple(kept)


def _head(state: RunState, width: int) -> Line:
    words: list[Span] = [(one_line(state.team), "bold"), ("  ", "")]
    style = {Phase.SUCCEEDED: "good", Phase.FAILED: "bad", Phase.WAITING: "warn", Phase.CANCELLED: "warn"}
    phase = "Cancelling" if state.cancel_requested and not state.phase.is_final else state.phase.value
    words.append((phase, style.get(state.phase, "tool")))
    words.append((f"  run {state.id}", "dim"))
    return fit(tuple(words), width)


def _foot(state: RunState, now: float) -> Line:
    over = sum(step.phase.is_final for step in state.steps)
    parts = [f"{over} of {len(state.steps)} steps"]
    if state.tokens:
        parts.append(f"{count(state.tokens)} tokens")
    if state.cost_usd:
        parts.append(usd(state.cost_usd))
    began_at = state.started_at or state.created_at
    if began_at:
        parts.append(duration((state.ended_at or now) - began_at))
    return (("  " + " · ".join(parts), "dim"),)
