"""What the demo shows: a line per task that grows as its chunks arrive, then a table of what it took."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from queue_backends import Chunk, ChunkType, TaskResult, TokenUsage

STYLES = {ChunkType.THINKING: "dim italic", ChunkType.TOOL_CALL: "cyan", ChunkType.TOOL_RESULT: "green"}


class Job:
    """One task of the demo, and what has been seen of it."""

    def __init__(self, *, number: int, agent: str, prompt: str) -> None:
        self.number = number
        self.agent = agent
        self.prompt = prompt
        self.result: TaskResult | None = None
        self.seconds = 0.0
        self.tools = 0
        self.restarts = 0
        self._shown = Text()
        self._turn_begins = 0
        self._turn = 0
        self._attempt = 0

    def see(self, chunk: Chunk) -> bool:
        """Add a chunk; one of a higher attempt replaces what its turn had shown before, and says so."""
        restarted = chunk.turn == self._turn and chunk.attempt > self._attempt
        if chunk.turn != self._turn:
            self._turn, self._attempt, self._turn_begins = chunk.turn, chunk.attempt, len(self._shown)
        elif restarted:
            self._attempt = chunk.attempt
            self.restarts += 1
            self._shown = self._shown[: self._turn_begins]
            self._shown.append("⟲ ", "yellow")
        if chunk.type is ChunkType.TOOL_CALL:
            self.tools += 1
        self._shown.append(piece(chunk), STYLES.get(chunk.type, "red" if chunk.type is ChunkType.ERROR else ""))
        return restarted

    def tail(self, width: int) -> Text:
        """The newest part of what was shown, on one line."""
        line = Text(" ").join(self._shown.split("\n"))
        return line[-width:] if len(line) > width else line

    @property
    def state(self) -> Text:
        """A sign for where the task is."""
        if self.result is None:
            return Text("●", "yellow") if self._shown else Text("○", "dim")
        return Text("✓", "green") if self.result.ok else Text("✗", "red")


def piece(chunk: Chunk) -> str:
    """A chunk as a piece of a line."""
    if chunk.type is ChunkType.TOOL_CALL:
        arguments = ", ".join(
            f"{name}={value!r}" for name, value in dict(chunk.metadata.get("arguments") or {}).items()
        )
        return f" → {chunk.content}({arguments}) "
    if chunk.type is ChunkType.TOOL_RESULT:
        sign = "✗" if chunk.metadata.get("is_error") else "←"
        return f" {sign} {' '.join(chunk.content.split())[:60]} "
    return chunk.content


class Display:
    """All jobs, live on a terminal; line by line where the output is no terminal."""

    def __init__(self, console: Console, jobs: Sequence[Job]) -> None:
        self._console = console
        self._jobs = jobs
        self._live: Live | None = None
        self._open_lines: dict[int, str] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=20)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)
            self._live = None

    def _table(self) -> Group:
        lines = []
        for job in self._jobs:
            width = max(self._console.width - 18, 20)
            lines.append(Text.assemble(job.state, f" {job.number} ", (f"{job.agent:<10} ", "bold"), job.tail(width)))
        return Group(*lines)

    def show(self, job: Job, chunk: Chunk) -> None:
        """A chunk has come. On a terminal the next refresh shows it."""
        restarted = job.see(chunk)
        if self._live is None:
            if restarted:
                self._print_lines(job, " ⟲ the turn starts over", ends=True)
            self._print_lines(job, piece(chunk), ends=chunk.type not in {ChunkType.CONTENT, ChunkType.THINKING})

    def _print_lines(self, job: Job, text: str, *, ends: bool) -> None:
        line = self._open_lines.get(job.number, "") + text
        if (ends or len(line) > 60) and line.strip():
            self._console.print(f"[{job.number} {job.agent}] {' '.join(line.split())}", markup=False, soft_wrap=True)
            line = ""
        self._open_lines[job.number] = line

    def ended(self, job: Job) -> None:
        """A task has its result."""
        if self._live is None:
            self._print_lines(job, "", ends=True)

    def summary(self, seconds: float) -> None:
        """The table of results."""
        self.__exit__(None, None, None)
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for name, justify in (("", "left"), ("#", "right"), ("task", "left"), ("agent", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]  # rich's own literal type
        for name in ("tools", "in", "out", "time", "cost"):
            table.add_column(name, justify="right")
        total = TokenUsage()
        for job in self._jobs:
            usage = job.result.usage if job.result else TokenUsage()
            total = total + usage
            restarted = f" [yellow]({job.restarts} restarted)[/]" if job.restarts else ""
            table.add_row(
                job.state,
                str(job.number),
                job.prompt + restarted,
                job.agent,
                str(job.tools or ""),
                _count(usage.input_tokens),
                _count(usage.output_tokens),
                f"{job.seconds:.1f} s",
                _money(job.result.cost_usd if job.result else None),
            )
        self._console.print()
        self._console.print(table)
        failed = [job for job in self._jobs if job.result is None or not job.result.ok]
        tokens = f"{_count(total.input_tokens)} tokens in, {_count(total.output_tokens)} out"
        self._console.print(
            f"\n{len(self._jobs) - len(failed)} of {len(self._jobs)} tasks done in {seconds:.1f} s · {tokens}"
        )
        for job in failed:
            self._console.print(f"[red]task {job.number}:[/] {job.result.error if job.result else 'no result'}")
        if not any(job.result and job.result.cost_usd for job in self._jobs):
            self._console.print("[dim]cost: none of these models has a price; with an API key set, it is in dollars[/]")
        self._console.print('\nNext: [bold].venv/bin/shoal run "Write a haiku"[/] · README.md · docs/')


def _count(tokens: int | None) -> str:
    return "-" if tokens is None else str(tokens)


def _money(cost_usd: float | None) -> str:
    if cost_usd is None:
        return "-"
    return f"${cost_usd:.4f}" if cost_usd >= 0.01 else f"${cost_usd:.6f}"
