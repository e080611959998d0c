"""How texts are cut into passages."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.datasources.chunking import chunks, tokens_of
from worker.datasources.documents import heading_of

MANUAL = """# Manual

Intro.

## Pumps

Pumps move water.

```sh
# not a heading
pump --start
```

### Filters

Change them.

## Valves

Valves shut.
"""


def test_headings_part_passages() -> None:
    """Each passage knows the headings above it, and none reaches over one; code is no heading."""
    found = chunks(MANUAL, most_tokens=400, overlap_tokens=60, with_headings=True)
    assert [(chunk.heading, chunk.content.split("\n")[0]) for chunk in found] == [
        ("Manual", "Intro."),
        ("Manual > Pumps", "Pumps move water."),
        ("Manual > Pumps > Filters", "Change them."),
        ("Manual > Valves", "Valves shut."),
    ]
    assert "# not a heading" in found[1].content


def test_headings_without_text() -> None:
    """They are not lost: a title alone can be found, and one above other headings is a part of theirs."""
    found = chunks("# Top\n\n## First\n\n## Second\n\nText.", most_tokens=400, overlap_tokens=0, with_headings=True)
    assert [(chunk.heading, chunk.content) for chunk in found] == [("Top", "## First"), ("Top > Second", "Text.")]


def test_without_headings_it_is_one_text() -> None:
    """Plain text has no headings, whatever its lines begin with."""
    (only,) = chunks("# one\n\ntwo", most_tokens=400, overlap_tokens=60, with_headings=False)
    assert only.content == "# one\n\ntwo"


def test_passages_overlap() -> None:
    """A passage begins with the end of the one before."""
    text = "\n\n".join(f"Paragraph {number} says something of its own." for number in range(40))
    found = chunks(text, most_tokens=60, overlap_tokens=15, with_headings=True)
    assert len(found) > 5
    for before, after in itertools.pairwise(found):
        assert after.content.split("\n\n")[0] == before.content.split("\n\n")[-1]


def test_no_overlap() -> None:
    """Without, every paragraph is in one passage."""
    text = "\n\n".join(f"Paragraph {number} says something of its own." for number in range(40))
    found = chunks(text, most_tokens=60, overlap_tokens=0, with_headings=True)
    assert "\n\n".join(chunk.content for chunk in found) == text


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab #.\n漢é`|-"), max_size=1500), st.integers(32, 120), st.booleans())
def test_nothing_is_lost_and_nothing_too_long(text: str, most: int, with_headings: bool) -> None:
    """Every passage begins where it says, keeps to the limit, and together they hold all letters."""
    found = chunks(text, most_tokens=most, overlap_tokens=most // 4, with_headings=with_headings)
    for chunk in found:
        assert tokens_of(chunk.content) <= most + 8
        assert text[chunk.position :].startswith(chunk.content.split("\n")[0][:1])
    held = "".join(chunk.content + chunk.heading for chunk in found)
    assert set(text) - set(held) <= set(" \n#`")
    assert bool(found) == bool(text.strip())


def test_long_lines_are_cut() -> None:
    """A text without any break is cut all the same, at spaces if there are some."""
    found = chunks("word " * 5000, most_tokens=100, overlap_tokens=10, with_headings=False)
    assert all(tokens_of(chunk.content) <= 100 for chunk in found)
    assert all(chunk.content.startswith("word") for chunk in found)
    found = chunks("x" * 50_000, most_tokens=100, overlap_tokens=0, with_headings=False)
    assert sum(len(chunk.content) for chunk in found) == 50_000


def test_a_text_that_was_made_to_be_slow() -> None:
    """Headings that are almost closed, and a million small paragraphs: both are read in one go."""
    almost = "# a" + " " * 50_000 + "b"
    assert heading_of(almost).startswith("a ")
    assert chunks(f"x\n{almost}", most_tokens=400, overlap_tokens=60, with_headings=True)
    assert chunks("a\n\n" * 100_000, most_tokens=4000, overlap_tokens=60, with_headings=True)


def test_signs_that_close_a_heading() -> None:
    """They are no part of it; those that belong to a word are."""
    headings = [heading_of(f"# {text}") for text in ("Filter #", "Filter ##  ", "C#", "Filter")]
    assert headings == ["Filter", "Filter", "C#", "Filter"]
