"""What reading a model's stream costs."""

from __future__ import annotations

import sys
from collections import defaultdict

from tests.benchmarks.drivers.decoding import KEY_VARIABLE
from tests.benchmarks.figures import median, written
from tests.benchmarks.programs import Program
from tests.benchmarks.report import Table
from tests.benchmarks.run import Run
from tests.benchmarks.targets import ratio_at_least

FORMATS = {
    "openai": "OpenAI",
    "responses": "OpenAI Responses",
    "anthropic": "Anthropic",
    "gemini": "Gemini",
    "ollama": "Ollama",
}
CLIENTS = {"shoal": "**Shoal**, to TurnEvent", "bare": "aiohttp + msgspec alone", "sdk": "official SDK"}
BOUNDS = {"openai": 15.0, "responses": 5.0, "anthropic": 5.0, "gemini": 8.0, "ollama": 3.0}
"""By how much our way has to be cheaper than the vendor's own client."""
BARE_BOUNDS = {"openai": 0.6, "responses": 0.5, "anthropic": 0.6, "gemini": 0.3, "ollama": 0.5}
"""How near our way has to come to bare code. Gemini says in each chunk what was used so far, which bare code skips."""
CHUNKS = 2_000
PACED_AT_ONCE = 20
PACED_CHUNKS, PACED_PER_S = 400, 200.0
MODES = ("whole", "paced")
ROUNDS = 3
TIMES = {"shoal": 10, "bare": 10, "sdk": 1}
"""Who is fast reads so many times as many answers: a tenth of a second would be too short to be measured."""
SAME_HEAP = {"MALLOC_MMAP_THRESHOLD_": "4194304", "MALLOC_TRIM_THRESHOLD_": "33554432"}
"""Without it, glibc gives each read's buffer back to the kernel or not, by what a process had freed before: 10 µs."""


def measure(run: Run) -> None:
    """All clients in turn, on answers that come whole and on twenty that come paced."""
    samples: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    names = [f"{form} {client} {mode}" for mode in MODES for form in FORMATS for client in CLIENTS]
    for turn, name in run.interleaved(names, min(ROUNDS, run.effort.rounds)):
        run.say(f"decoding, round {turn + 1}: {name}")
        form, client, mode = name.split()
        cost = run.attempt("decoding", name, _cost, run, form, client, mode)
        if cost is not None:
            samples[form, client, mode].append(cost)

    def cell(form: str, client: str) -> str:
        return " / ".join(written(median(found)) if (found := samples[form, client, m]) else "—" for m in MODES)

    run.report.tables.append(
        Table(
            section="decoding",
            title=f"Streaming a model: client CPU µs per chunk, from socket to event ({' / '.join(MODES)})",
            columns=["", *(f"{label} format" for label in FORMATS.values())],
            rows=[(label, *(cell(form, client) for form in FORMATS)) for client, label in CLIENTS.items()],
            notes=[
                (
                    f"Whole: {CHUNKS:,} chunks that come at once; {run.effort.answers} answers, one after the other, "
                    f"of which Shoal and bare code, being fast, read {TIMES['shoal']} times as many. "
                    f"Paced: {PACED_AT_ONCE} answers at once, {PACED_PER_S:g} chunks a second each. "
                    f"From another process, each event its own HTTP chunk. Medians of {ROUNDS} rounds."
                ),
                "SDKs: openai, anthropic, google-genai and ollama, by the plain call that streams, their cheapest way. "
                "All clients: `" + "`, `".join(f"{name}={value}" for name, value in SAME_HEAP.items()) + "`.",
            ],
        )
    )
    for form, label in FORMATS.items():
        mine, bare, sdk = (samples[form, client, "whole"] for client in ("shoal", "bare", "sdk"))
        if mine and sdk:
            text = f"decoding {label}: SDK's cost over ours"
            run.report.verdicts.append(ratio_at_least("decoding", text, sdk, mine, BOUNDS[form], "ours", "µs/chunk"))
        if mine and bare:
            text = f"decoding {label}: bare cost over ours"
            run.report.verdicts.append(
                ratio_at_least("decoding", text, bare, mine, BARE_BOUNDS[form], "ours", "µs/chunk")
            )


def _cost(run: Run, form: str, client: str, mode: str) -> float:
    whole = mode == "whole"
    chunks = CHUNKS if whole else PACED_CHUNKS
    flags = ["--mode", mode, "--chunks", str(chunks), "--per-s", str(PACED_PER_S)]
    with Program(sys.executable, "tests.benchmarks.drivers.replay_server", flags) as model:
        address = f"http://127.0.0.1:{model.line('READY', 30)}"
        answers, at_once = (run.effort.answers * TIMES[client], 1) if whole else (1, PACED_AT_ONCE)
        flags = ["--format", form, "--client", client, "--base-url", address, "--answers", str(answers)]
        flags += ["--at-once", str(at_once)]
        environment = {KEY_VARIABLE: "none", **SAME_HEAP}
        with Program(sys.executable, "tests.benchmarks.drivers.decoding", flags, **environment) as reader:
            figures = reader.figures(120)
    expected = chunks * answers * at_once
    if figures["texts"] < expected:
        raise RuntimeError(f"{client} saw {figures['texts']} of {expected} pieces of text")
    return float(figures["us_per_chunk"])
