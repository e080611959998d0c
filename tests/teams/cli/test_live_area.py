"""Drawing in place: nothing is left behind, nothing breaks out of its line."""

from __future__ import annotations

import logging
import re

import pytest
from rich.cells import cell_len

from tests.teams.cli.hand_made import Paper
from worker.cli.live_area import LiveArea, cells, cut, fit, last_lines, safe
from worker.cli.screen import clean


def rows_up(written: str) -> int:
    """How far the cursor went up first."""
    found = re.search(r"\x1b\[(\d+)A", written)
    return int(found[1]) if found else 0


def test_a_frame_replaces_the_one_before() -> None:
    """The cursor goes up by as many rows as stand there, and what is left below is wiped."""
    paper = Paper(columns=20)
    area = LiveArea(paper)
    area.draw([(("one", ""),), (("two", ""),), (("three", ""),)])
    first = paper.take()
    area.draw([(("uno", ""),)])
    second = paper.take()
    assert (rows_up(first), rows_up(second)) == (0, 3)
    assert "uno\x1b[K" in second
    assert second.index("uno") < second.index("\x1b[J")


def test_a_frame_that_is_as_it_was_writes_nothing() -> None:
    """So that nothing flickers while nothing happens; and of one that differs, only the lines that do."""
    paper = Paper()
    area = LiveArea(paper)
    area.draw([(("same", ""),), (("old", ""),)])
    paper.take()
    area.draw([(("same", ""),), (("old", ""),)])
    assert paper.take() == ""
    area.draw([(("same", ""),), (("new", ""),)])
    written = paper.take()
    assert "new" in written
    assert "same" not in written


def test_a_terminal_that_became_narrower_has_more_rows_to_wipe() -> None:
    """It has broken the lines that stood there."""
    paper = Paper(columns=40)
    area = LiveArea(paper)
    area.draw([(("x" * 40, ""),), (("y", ""),)])
    paper.take()
    paper.dimensions = (15, 24)
    area.draw([(("z", ""),)])
    assert rows_up(paper.take()) == 3 + 1


def test_no_more_lines_than_the_terminal_has() -> None:
    """What scrolls away could not be replaced."""
    paper = Paper(lines=5)
    LiveArea(paper).draw([((f"line {n}", ""),) for n in range(30)])
    assert paper.take().count("\n") == 4


@pytest.mark.parametrize("width", [1, 2, 5, 11, 30])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Wide characters count twice, and are not cut in half."""
    line = (("鲸鱼是海洋", "bold"), (" in ", ""), ("中最大的动物", "dim"))
    assert cells(fit(line, width)) <= width
    assert cell_len(cut("鲸鱼是 海洋中最大的动物", width)) <= width
    for piece in last_lines("鲸鱼 whales是海洋中最大的动物 and more", max(width, 2), 5):
        assert cell_len(piece) <= max(width, 2)


def test_text_of_others_cannot_steer_the_terminal() -> None:
    """Neither colours, titles and cursor movements, nor characters that turn the reading direction."""
    assert safe("a\x1b[31mred\x1b[0m\x07b\x1b]0;title\x07c\u202ed\u200be\x9b2Jf") == "aredbcde2Jf"


def test_what_is_shown_as_it_is_keeps_its_lines_and_loses_orders_as_a_whole() -> None:
    """Not the escape character alone, which would leave the rest of an order standing there as text."""
    assert clean("\x1b[2J\x1b[31mred\x1b]0;title\x07 bell\x07\n\tnext 👩\u200d🚀\x9b") == "red bell\n\tnext 👩\u200d🚀"


def test_the_last_lines_of_a_text_are_broken_at_words() -> None:
    """The newest ones, without empty ones between."""
    assert last_lines("one two three\n\nfour five six", 9, 3) == ["three", "four five", "six"]
    assert last_lines("", 9, 3) == []
    assert last_lines("abcdefghij", 4, 9) == ["abcd", "efgh", "ij"]


def test_what_is_logged_stands_above_the_area() -> None:
    """The area is wiped first, so that neither breaks the other, and drawn whole the next time."""
    paper = Paper()
    area, log = LiveArea(paper), logging.getLogger()
    handler = logging.StreamHandler(paper.notes)
    log.addHandler(handler)
    try:
        area.draw([(("tree", ""),)])
        with area.below_the_log():
            paper.take()
            log.error("something happened")
            assert paper.take() == "\r\x1b[1A\x1b[J"
            area.draw([(("tree", ""),)])
        assert paper.notes.getvalue() == "something happened\n"
        assert "tree" in paper.take()
        assert handler.stream is paper.notes
    finally:
        log.removeHandler(handler)
