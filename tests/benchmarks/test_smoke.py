"""The harness's own arithmetic: nothing here measures, so nothing here depends on the machine."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.benchmarks.book import Book, write_coefficients
from tests.benchmarks.drivers.replay_formats import (
    AnthropicFormat,
    Format,
    GeminiFormat,
    OllamaFormat,
    OpenAIFormat,
    ResponsesFormat,
    format_of,
)
from tests.benchmarks.drivers.replay_server import http_chunk, whole_answer
from tests.benchmarks.engines import NotHere
from tests.benchmarks.figures import median, percentile, spread, written
from tests.benchmarks.meter import Reading, between
from tests.benchmarks.plots import Curve, Plot, draw, short
from tests.benchmarks.report import BEGIN, END, Report, Table, markdown_table, render, replaced
from tests.benchmarks.rows import engines
from tests.benchmarks.rows.watching import Drain, Sight
from tests.benchmarks.run import QUICK, Run
from tests.benchmarks.targets import at_least, at_most, ratio_at_least, ratio_at_most


@pytest.mark.parametrize(("samples", "expected"), [([3.0], 3.0), ([9.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 3.0], 2.5)])
def test_median_is_the_middle_whatever_the_order(samples: list[float], expected: float) -> None:
    """An odd number gives the middle sample, an even one the mean of the two."""
    assert median(samples) == expected


def test_no_samples_are_an_error_and_not_a_figure() -> None:
    """A run that failed must not show up as a number."""
    with pytest.raises(ValueError, match="no samples"):
        median([])
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 99)


@pytest.mark.parametrize(("percent", "expected"), [(50, 50.0), (99, 99.0), (100, 100.0), (0, 1.0)])
def test_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    """Of 1 to 100, the n-th percentile is n: no interpolation invents a latency that nobody had."""
    assert percentile([float(n) for n in range(100, 0, -1)], percent) == expected


def test_spread_compares_the_outermost_rounds() -> None:
    """Largest over smallest; unknown if nothing was measured."""
    assert spread([2.0, 5.0, 4.0]) == 2.5
    assert math.isnan(spread([]))


@pytest.mark.parametrize(
    ("value", "text"),
    [(31_817.4, "31,800"), (1_234_567.0, "1,230,000"), (4.567, "4.57"), (0.01234, "0.012"), (0.0, "0"), (99.96, "100"),
     (None, "—"), (math.nan, "—")],
)  # fmt: skip
def test_figures_are_written_with_three_digits(value: float | None, text: str) -> None:
    """No figure pretends to more precision than a shared machine has."""
    assert written(value) == text


def test_targets_know_their_direction() -> None:
    """Too slow is missed, too late is missed, and meeting the bound exactly is reaching it."""
    assert at_least("s", "rate", 100.0, 100.0, "/s").reached
    assert not at_least("s", "rate", 99.0, 100.0, "/s").reached
    assert at_most("s", "delay", 5.0, 5.0, "ms").reached
    assert not at_most("s", "delay", 5.1, 5.0, "ms").reached


def test_ratios_name_whom_they_compare_with() -> None:
    """A ratio says both figures, so that a reader can check it."""
    # given a rate of 12,000 beside the best peer's 1,500, and 8 times as much wanted
    verdict = ratio_at_least("s", "drain", [12_000.0], [1_500.0], 8.0, "dramatiq", "tasks/s")
    # then it is reached, by the very figures
    assert verdict.reached
    assert verdict.word == "reached"
    assert verdict.target == "≥ 8.00 times dramatiq"
    assert verdict.compared == "12,000 to 1,500 tasks/s"
    assert not ratio_at_most("s", "start", [1.8], [2.0], 0.8, "taskiq", "ms").reached


def test_a_ratio_is_taken_round_by_round() -> None:
    """A machine that was twice as fast in one round was so for both."""
    verdict = ratio_at_least("s", "drain", [9.0, 20.0, 11.0], [1.0, 2.0, 1.0], 10.0, "arq", "tasks/s")
    assert (verdict.reached, verdict.measured, verdict.compared) == (True, "10.0 times", "11.0 to 1.00 tasks/s")


def test_a_table_refuses_a_row_of_another_width() -> None:
    """A figure must not slip under another column's head."""
    assert markdown_table(["who", "a|b"], [["x", "1"]]) == "| who | a\\|b |\n| --- | ---: |\n| x | 1 |"
    with pytest.raises(ValueError, match="2 columns"):
        markdown_table(["who", "rate"], [["x", "1", "2"]])


def test_the_report_says_losses_and_failures_plainly() -> None:
    """Whatever was missed or not measured stands in the document by name."""
    # given a run with one target reached, one missed, and one contender that did not start
    report = Report(section="s", machine="Measured somewhere.", failures=["queue, arq: ended"])
    report.verdicts += [at_least("s", "rate", 3.0, 2.0, "/s"), at_most("s", "delay", 9.0, 5.0, "ms")]
    report.tables.append(Table(section="s", title="Rates", columns=["", "/s"], rows=[["x", "3"]], notes=["once"]))
    # when it is written
    text = render([report])
    # then it says so
    assert "1 of 2 targets reached. Missed:\n\n- delay: 9.00 ms instead of ≤ 5.00 ms" in text
    assert "## Not measured\n\n- queue, arq: ended" in text
    assert text.index("## Targets") < text.index("## Rates")


def test_only_the_generated_part_of_the_document_changes() -> None:
    """What people wrote around the tables stays, and a document without a place for them is refused."""
    document = f"# Title\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(document, "new\n") == f"# Title\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert replaced(replaced(document, "old\n"), "new\n") == replaced(document, "new\n")
    with pytest.raises(ValueError, match="put both lines"):
        replaced("# Title\n", "new")


def _part(section: str, machine: str, figure: str) -> Report:
    plot = Plot(
        name=section, title="Flat", x_label="tasks", y_label="µs", curves=[Curve(label="it", x=[1, 10], y=[2, 2])]
    )
    table = Table(section=section, title=f"Rates of {section}", columns=["", "/s"], rows=[["x", figure]], plots=[plot])
    return Report(
        section=section,
        machine=machine,
        measured_at="2026-01-01 10:00",
        seconds=9.0,
        tables=[table],
        figures={"x": 1.0},
    )


def test_a_run_of_some_parts_keeps_the_others(tmp_path: Path) -> None:
    """Tables, verdicts and plots of what was not measured stay as they were, with their own time and machine."""
    pytest.importorskip("matplotlib", reason="only those who measure have it")
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n{BEGIN}\nold\n{END}\nafter\n")
    book = Book(page, ["first", "second"])
    # given a page with two parts, of which one is measured again, on another machine
    book.put([_part("second", "Machine A.", "222"), _part("first", "Machine A.", "111")])
    book.put([_part("second", "Machine B.", "333")])
    # then the other one is as it was, in the order of the page
    text = page.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("after\n")
    assert "| x | 111 |" in text
    assert "| x | 333 |" in text
    assert "| x | 222 |" not in text
    assert text.index("Rates of first") < text.index("Rates of second")
    assert (
        "Machine A. When each part was measured, in UTC, and how long that took: first 2026-01-01 10:00 (9 s)." in text
    )
    assert "![Flat](plots/second.svg)" in text
    assert sorted(file.name for file in (tmp_path / "plots").iterdir()) == ["first.svg", "second.svg"]


def test_a_plot_is_the_same_however_often_it_is_drawn() -> None:
    """No date and no random name: what has not been measured again does not change in the repository."""
    pytest.importorskip("matplotlib", reason="only those who measure have it")
    (plot,) = _part("s", "M.", "1").tables[0].plots
    assert draw(plot) == draw(plot)
    assert "<text" in draw(plot)


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (10, "10"), (1_000, "1k"), (1_500_000, "1.5M")])
def test_ticks_are_short(value: float, text: str) -> None:
    """A million fits below its tick."""
    assert short(value) == text


def test_work_is_what_lies_between_two_readings() -> None:
    """Commands that the harness sends itself do not count, those that did not run are left out."""
    before = Reading(at_s=1.0, calls={"xadd": 5, "info": 1}, cpu_s=1.0, bytes_in=10, bytes_out=0, memory=100)
    calls = {"xadd": 9, "info": 3, "evalsha": 2, "get": 0}
    after = Reading(at_s=3.0, calls=calls, cpu_s=1.5, bytes_in=30, bytes_out=7, memory=160)
    work = between(before, after)
    assert (work.commands, work.scripts, work.seconds) == (6, 2, 2.0)
    assert (work.bytes_in, work.bytes_out, work.memory, work.cpu_us) == (20, 7, 60, 500_000)
    assert "get" not in work.calls


def test_a_drain_counts_from_the_first_result_seen() -> None:
    """Start-up before the first result is nobody's throughput."""
    # given a worker whose first look showed 100 results and whose last one 1,100, half a second later
    drain = Drain(first=Sight(at_s=10.0, finished=100, cpu_s=1.0), last=Sight(at_s=10.5, finished=1_100, cpu_s=1.4))
    # then only what happened in between counts
    assert (drain.per_s, drain.seconds) == (2_000.0, 0.5)
    assert drain.cpu_us == pytest.approx(400.0)


@pytest.mark.parametrize(
    ("path", "form", "piece", "last"),
    [
        ("/v1/chat/completions", OpenAIFormat, b'"content": "Sixty', b"data: [DONE]\n\n"),
        ("/v1/messages", AnthropicFormat, b"event: content_block_delta", b'"type": "message_stop"}\n\n'),
        ("/v1/responses", ResponsesFormat, b"event: response.output_text.delta", b'"sequence_number": 9}\n\n'),
        (
            "/v1beta/models/x:streamGenerateContent?alt=sse",
            GeminiFormat,
            b'"text": "Sixty',
            b'"responseId": "r1"}\r\n\r\n',
        ),
        ("/api/chat", OllamaFormat, b'"content": "Sixty', b'"eval_duration": 1}\n'),
    ],
)
def test_the_replayed_answer_is_complete(path: str, form: type[Format], piece: bytes, last: bytes) -> None:
    """Every chunk is its own HTTP chunk, and the stream ends as the vendors end theirs."""
    assert type(format_of(path)) is form
    answer = whole_answer(form, 3)
    assert answer.count(piece) == 3
    assert answer.endswith(last + b"\r\n0\r\n\r\n")
    assert http_chunk("abc") == b"3\r\nabc\r\n"


def test_an_engine_that_cannot_be_started_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has a line that says what is missing, and the others are measured."""

    def missing() -> AbstractContextManager[str]:
        raise NotHere("there is no such server")

    monkeypatch.setattr(engines, "ENGINES", {"`none://`": missing})
    report = Report(section="engines")
    engines.measure(Run(server=None, effort=QUICK, report=report))  # type: ignore[arg-type]  # each engine has its own
    (table,) = report.tables
    assert table.rows == []
    assert "`none://`: not measured here: there is no such server." in table.notes


def test_half_a_measurement_does_not_reach_the_capacity_model(tmp_path: Path) -> None:
    """A curve that failed leaves the model with the costs that it had."""
    file = tmp_path / "measured.json"
    file.write_text("{}")
    with pytest.raises(ValueError, match="growth is not complete"):
        write_coefficients({"growth": Report(section="growth", figures={"waiting_bytes": 34.0})}, file)
    assert file.read_text() == "{}"
