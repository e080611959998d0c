"""The manual's tables of providers: what each can do, and against which real servers it was run.

`python -m tests.providers.conformance_table` runs the conformance suite for every built-in provider, and all of them
against the servers of `SERVERS`; if all of that passes, it writes the tables into the manual. A test finds out if that
was forgotten: what a provider lacks, it says itself, and the suite holds it to that, so no run is needed to compare.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from providers.capabilities import Capability
from providers.conformance import ProviderConformance

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MANUAL = ROOT / "docs" / "providers.md"
BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"

TITLES = {
    "TestAnthropic": "anthropic",
    "TestOpenAI": "openai",
    "TestOpenAIResponses": "openai_responses",
    "TestAzureChat": "azure, Chat",
    "TestAzureResponses": "azure, Responses",
    "TestGemini": "gemini",
    "TestVertexGemini": "vertex, Gemini",
    "TestVertexClaude": "vertex, Claude",
    "TestBedrock": "bedrock",
    "TestOllama": "ollama",
}
"""Test class -> column, in the order of the columns. Others follow, under their providers' names."""

SERVERS = {
    "llama.cpp, a real model": "test_provider_local_model.py",
    "llmock, a mock that judges its clients": "test_provider_llmock.py",
    "aimock, a mock with faults on demand": "test_provider_aimock.py",
}
"""Third-party server -> the tests that run against it."""

_ADAPTERS = {
    "anthropic": "anthropic",
    "openai": "openai",
    "openai_responses": "openai_responses",
    "responses": "openai_responses",
    "azure": "azure",
    "gemini": "gemini",
    "vertex": "vertex",
    "bedrock": "bedrock",
    "ollama": "ollama",
    "AnthropicProvider": "anthropic",
    "OpenAIChatProvider": "openai",
    "OpenAIResponsesProvider": "openai_responses",
}
"""Parts of test names -> provider, in the order of the columns."""


def suites() -> list[type[ProviderConformance]]:
    """The test class of each built-in provider, in the order of the columns."""
    found: dict[str, type[ProviderConformance]] = {}
    for path in sorted(HERE.glob("test_provider_*conformance.py")):
        module = importlib.import_module(f"tests.providers.{path.stem}")
        found |= {name: value for name, value in vars(module).items() if name.startswith("Test") and _is_suite(value)}
    places = {name: place for place, name in enumerate(TITLES)}
    return [found[name] for name in sorted(found, key=lambda name: (places.get(name, len(places)), name))]


def _is_suite(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, ProviderConformance)


def capability_table() -> str:
    """Capabilities by provider, with what is missing as notes, and below it what all of them do."""
    notes = _Footnotes()
    columns = suites()
    gaps = [suite().provider().gaps for suite in columns]
    rows = [
        ["", *(TITLES.get(suite.__name__) or suite().provider().name for suite in columns)],
        ["---"] * (len(columns) + 1),
        *(
            [each.value, *(f"no ({notes.number(gap[each])})" if each in gap else "yes" for gap in gaps)]
            for each in Capability
        ),
    ]
    shared = [f"- {_sentence(test.__doc__)}" for test in _behaviours() if "needs" not in vars(test)]
    heading = "All of them, in every case, besides what the rows say:"
    return "\n".join([*map(_line, rows), "", *notes.lines(), "", heading, "", *shared])


def _behaviours() -> Iterator[object]:
    for base in reversed(ProviderConformance.__mro__):
        for name, value in vars(base).items():
            if name.startswith("test_"):
                yield value


def _sentence(text: str | None) -> str:
    """A test's docstring, without what only authors of suites need."""
    return re.sub(r" \(hooks? [^)]*\)", "", " ".join((text or "").split()))


def server_table(names: Mapping[str, set[str]]) -> str:
    """Which provider was run against which real server. `names`: the server's title -> providers."""
    known = list(dict.fromkeys(_ADAPTERS.values()))
    columns = [name for name in known if any(name in found for found in names.values())]
    rows = [
        ["", *columns],
        ["---"] * (len(columns) + 1),
        *([title, *("yes" if name in names[title] else "" for name in columns)] for title in SERVERS),
    ]
    return "\n".join(map(_line, rows))


def adapters_by_server() -> dict[str, set[str]]:
    """What the tests against real servers are parametrised with, as pytest collects them."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=", "-p", "no:xdist"]
    files = [str(HERE / file) for file in SERVERS.values()]
    said = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    found: dict[str, set[str]] = {title: set() for title in SERVERS}
    for line in said.splitlines():
        file, _, test = line.partition("::")
        for title, wanted in SERVERS.items():
            if file.endswith(wanted) and "[" in test:
                parts = test.rpartition("[")[2].rstrip("]").split("-")
                found[title] |= {_ADAPTERS[part] for part in parts if part in _ADAPTERS}
    return found


def content() -> str:
    """The whole part of the manual between its markers."""
    return f"{capability_table()}\n\nRun against servers of others:\n\n{server_table(adapters_by_server())}"


def _line(row: list[str]) -> str:
    return f"| {' | '.join(row)} |"


class _Footnotes:
    """Sentences by number; the same sentence has one."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self._texts:
            self._texts.append(text)
        return self._texts.index(text) + 1

    def lines(self) -> Iterator[str]:
        for number, text in enumerate(self._texts, start=1):
            yield f"{number}. {text[0].upper()}{text[1:]}."


def between_markers(manual: str) -> str:
    """What the manual has now."""
    return manual.partition(BEGIN)[2].partition(END)[0].strip("\n")


def with_tables(manual: str) -> str:
    """The manual with the tables as they must be."""
    before, found, rest = manual.partition(BEGIN)
    if not found:
        raise SystemExit(f"{MANUAL} has no line {BEGIN}")
    return f"{before}{BEGIN}\n\n{content()}\n\n{END}{rest.partition(END)[2]}"


def run_all() -> None:
    """Run every suite and every server; what is skipped or fails keeps the manual as it is."""
    files = [*sorted(HERE.glob("test_provider_*conformance.py")), *(HERE / file for file in SERVERS.values())]
    counter = _Counter()
    code = pytest.main(["-q", "-p", "no:xdist", "-p", "no:cacheprovider", *map(str, files)], plugins=[counter])
    if code or counter.skipped:
        raise SystemExit(
            f"the manual stays as it is: pytest ended with {int(code)}; skipped: {counter.skipped or 'none'}"
        )


class _Counter:
    """A pytest plugin that keeps the names of skipped tests."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """An expected failure is a gap that the provider names, and no skip."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)


if __name__ == "__main__":
    run_all()
    MANUAL.write_text(with_tables(MANUAL.read_text(encoding="utf-8")), encoding="utf-8")
