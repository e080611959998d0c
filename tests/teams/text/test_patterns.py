"""Regular expressions: RE2's syntax, Go's matches and replacements, and no pattern that hangs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.teams.patterns import BadPattern, Match, Pattern, compiled

MATCHES: list[tuple[str, str, tuple[str | None, ...] | None]] = [
    ("a+b", "xaab", ("aab",)),
    ("a*?b", "aab", ("aab",)),
    ("a{2,3}?", "aaaa", ("aa",)),
    ("(a)|(b)", "b", ("b", None, "b")),
    ("(?P<y>\\d{4})-(?<m>\\d\\d)", "on 2026-11", ("2026-11", "2026", "11")),
    ("(?i)straße", "STRAße", ("STRAße",)),
    ("(?i:k)e", "\u212ae", ("\u212ae",)),
    ("a.b", "a\nb", None),
    ("(?s)a.b", "a\nb", ("a\nb",)),
    ("^b", "a\nb", None),
    ("(?m)^b$", "a\nb\nc", ("b",)),
    ("b$", "b\n", None),
    ("(?U)a+", "aaa", ("a",)),
    ("\\bfoo\\b", "a foo b", ("foo",)),
    ("\\Boo", "foo", ("oo",)),
    ("[[:alpha:]_]+", "12ab_", ("ab_",)),
    ("[^[:^digit:]]+", "ab12", ("12",)),
    ("\\pL+\\p{Nd}", "é1", ("é1",)),
    ("\\PL", "é1", ("1",)),
    ("\\Qa.b\\E+", "a.bb", ("a.bb",)),
    ("\\x41\\x{1F600}\\n", "A\U0001f600\n", ("A\U0001f600\n",)),
    ("[]a]+", "]a", ("]a",)),
    ("[a\\-z]+", "-z", ("-z",)),
    ("x{,2}", "x{,2}", ("x{,2}",)),
    ("", "abc", ("",)),
    ("(|a)+", "aa", ("", "")),
    ("(a|ab)(c|bcd)(d*)", "abcd", ("abcd", "a", "bcd", "")),
]


@pytest.mark.parametrize(("pattern", "text", "groups"), MATCHES)
def test_a_pattern_finds_what_re2_finds(pattern: str, text: str, groups: tuple[str | None, ...] | None) -> None:
    """Proves syntax, flags, classes, anchors, and which of several matches is taken."""
    found = compiled(pattern).find(text)
    assert (found.groups if found else None) == groups
    assert compiled(pattern).is_match(text) is (groups is not None)


REFUSED = [
    *("(", ")", "[a", "a**", "*a", "a{2,1}", "a{1001}", "(?=a)", "(?!a)", "(?<=a)", "(?<!a)", "(?P=n)", "\\1", "\\q"),
    *("[b-a]", "(?x)", "(?P<>a)", "\\p{Nope}", "[[:nope:]]", "\\x{110000}", "\\", "(?", "((a{1000}){1000})"),
    "a" * 5_000,
    "(" * 100,
]


@pytest.mark.parametrize("pattern", REFUSED)
def test_a_pattern_that_cannot_be_used_says_why(pattern: str) -> None:
    """Proves that faults, and what RE2 does not have, are refused with a reason."""
    with pytest.raises(BadPattern) as raised:
        compiled(pattern)
    assert len(str(raised.value)) > 10


def test_all_matches_are_those_that_do_not_overlap() -> None:
    """Proves Go's rule of empty matches: none directly behind another match."""
    assert [match.groups[0] for match in compiled("a*").find_all("baac")] == ["", "aa", ""]
    assert [(match.start, match.end) for match in compiled("$").find_all("ab")] == [(2, 2)]


def test_replacements_name_groups_as_in_go() -> None:
    """Proves `$1`, `${1}`, names, `$$`, unknown names, and the longest name."""
    pattern = compiled("(?P<first>\\w)(\\w)?")
    match = pattern.find("ab")
    assert match is not None
    assert pattern.replacement("$2-${first}x-$$-$1x-$9-$nope-$", match) == "b-ax-$----$"
    assert pattern.replacement("[$2]", Match(0, 1, ("a", "a", None))) == "[]"


def test_a_pattern_that_others_backtrack_on_is_quick() -> None:
    """Proves linear time: the classic exponential patterns answer, on long texts too."""
    for pattern in ("(a+)+$", "(a|a)+$", "(a|aa)+$", "(.*)(.*)(.*)(.*)(.*)x$"):
        assert not compiled(pattern).is_match("a" * 20_000 + "!")


ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "\\d", "\\w", "(?:ab)", "(a)", "(?:A|b)", "\\s", "é"])
REPEATS = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,2}", "*?"])
PIECES = st.tuples(ATOMS, REPEATS).map("".join) | st.sampled_from(["^", "$", "\\b", "(?i:A)"])
PATTERNS = st.lists(PIECES, min_size=1, max_size=5).map("".join)


@settings(max_examples=100, deadline=None)
@given(PATTERNS, st.text(alphabet="abA1é \n\ud800", max_size=10))
def test_places_are_those_of_the_text(pattern: str, text: str) -> None:
    """Proves that a match is found where Python's own library finds it, in texts beyond ASCII or not even valid."""
    found = Pattern(pattern).find(text)
    expected = re.search(pattern.replace("$", "\\Z"), text, re.ASCII)
    assert ((found.start, found.end) if found else None) == (expected.span() if expected else None)
