"""Rows of a layered drawing: every node below those it comes after, long edges led through passages in the rows
between, and the order in a row chosen so that few edges cross.

After K. Sugiyama, S. Tagawa, M. Toda: Methods for Visual Understanding of Hierarchical System Structures (1981).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

Pair = tuple[str, str]

_SWEEPS = 8
_LARGE = 1500
"""Items in rows; a drawing of more is swept less often."""


class Passage(Struct, frozen=True):
    """Where long edges pass a row. All edges that leave one node, or all that enter one, share theirs."""

    end: str
    """The node that they share."""
    leaves: bool
    """Whether they leave it, or enter it."""
    row: int


Item = str | Passage
Link = tuple[Item, Item]


class Rows(Struct, frozen=True):
    """The drawing's order."""

    rows: tuple[tuple[Item, ...], ...]
    paths: Mapping[Pair, tuple[Item, ...]]
    """Each edge, from its source through passages to its target: one item a row."""
    links: tuple[Link, ...]
    """Pairs of items in neighbouring rows that are joined."""
    parted: frozenset[int]
    """Rows that are parts of one level, which was too wide."""


def split_cycles(ids: Sequence[str], pairs: Iterable[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Edges that can all lead downwards, and those that would lead back up."""
    after: dict[str, list[str]] = {name: [] for name in ids}
    for pair in dict.fromkeys(pairs):
        after[pair[0]].append(pair[1])
    down: list[Pair] = []
    back: list[Pair] = []
    state: dict[str, bool] = {}  # True: on the way to it; False: done with it
    for root in ids:
        if root in state:
            continue
        state[root] = True
        stack = [(root, iter(after[root]))]
        while stack:
            name, rest = stack[-1]
            target = next(rest, None)
            if target is None:
                state[name] = False
                stack.pop()
                continue
            (back if state.get(target) else down).append((name, target))
            if target not in state:
                state[target] = True
                stack.append((target, iter(after[target])))
    return down, back


def without_implied(ids: Sequence[str], pairs: Sequence[Pair]) -> list[Pair]:
    """The edges that no longer way implies."""
    number = {name: place for place, name in enumerate(ids)}
    after: dict[str, list[str]] = defaultdict(list)
    for source, target in pairs:
        after[source].append(target)
    level = levels_of(ids, pairs)
    reach: dict[str, int] = {}
    kept: set[Pair] = set()
    for name in sorted(ids, key=lambda each: -level[each]):
        found = 0
        for target in sorted(after[name], key=lambda each: level[each]):
            if not found >> number[target] & 1:
                kept.add((name, target))
                found |= reach[target] | 1 << number[target]
        reach[name] = found
    return [pair for pair in pairs if pair in kept]


def levels_of(ids: Sequence[str], pairs: Iterable[Pair]) -> dict[str, int]:
    """How many edges the longest way to each node has. The edges form no cycle."""
    after: dict[str, list[str]] = defaultdict(list)
    missing = dict.fromkeys(ids, 0)
    for source, target in pairs:
        after[source].append(target)
        missing[target] += 1
    level = dict.fromkeys(ids, 0)
    ready = [name for name in ids if not missing[name]]
    for name in ready:
        for target in after[name]:
            level[target] = max(level[target], level[name] + 1)
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)
    return level


def rows_of(ids: Sequence[str], pairs: Sequence[Pair], *, most_in_row: int) -> Rows:
    """The drawing's rows. A level of more nodes than `most_in_row` becomes several rows."""
    row_of, height, parted = _wrapped(ids, levels_of(ids, pairs), most_in_row)
    paths = _paths(pairs, row_of)
    rows: list[list[Item]] = [[] for _ in range(height)]
    for name in ids:
        rows[row_of[name]].append(name)
    for item in dict.fromkeys(item for path in paths.values() for item in path):
        if isinstance(item, Passage):
            rows[item.row].append(item)
    links = tuple(dict.fromkeys(link for path in paths.values() for link in pairwise(path)))
    return Rows(_ordered(rows, links), paths, links, parted)


def _wrapped(
    ids: Sequence[str], level: Mapping[str, int], most_in_row: int
) -> tuple[dict[str, int], int, frozenset[int]]:
    """The row of each node, how many rows there are, and which of them are parts of a level."""
    members: dict[int, list[str]] = defaultdict(list)
    for name in ids:
        members[level[name]].append(name)
    row_of: dict[str, int] = {}
    parted: set[int] = set()
    top = 0
    for each in sorted(members):
        names = members[each]
        parts = -(-len(names) // most_in_row)
        size = -(-len(names) // parts)
        for place, name in enumerate(names):
            row_of[name] = top + place // size
        below = top + -(-len(names) // size)
        parted |= set(range(top, below)) if parts > 1 else set()
        top = below
    return row_of, top, frozenset(parted)


def _paths(pairs: Sequence[Pair], row_of: Mapping[str, int]) -> dict[Pair, tuple[Item, ...]]:
    long = [(source, target) for source, target in pairs if row_of[target] - row_of[source] > 1]
    leaving: dict[str, int] = defaultdict(int)
    entering: dict[str, int] = defaultdict(int)
    for source, target in long:
        leaving[source] += 1
        entering[target] += 1
    paths: dict[Pair, tuple[Item, ...]] = {}
    for source, target in pairs:
        leaves = leaving[source] >= entering[target]
        between = range(row_of[source] + 1, row_of[target])
        passages = (Passage(source if leaves else target, leaves, row) for row in between)
        paths[source, target] = (source, *passages, target)
    return paths


# The order in a row


def _ordered(rows: list[list[Item]], links: Iterable[Link]) -> tuple[tuple[Item, ...], ...]:
    above: dict[Item, list[Item]] = defaultdict(list)
    below: dict[Item, list[Item]] = defaultdict(list)
    for upper, lower in links:
        above[lower].append(upper)
        below[upper].append(lower)
    best = [list(row) for row in rows]
    fewest = _crossings(best, below)
    now = [list(row) for row in rows]
    for sweep in range(_SWEEPS if sum(map(len, rows)) <= _LARGE else 2):
        if not fewest:
            break
        _sweep(now, above if sweep % 2 == 0 else below, downwards=sweep % 2 == 0)
        count = _crossings(now, below)
        if count < fewest:
            best, fewest = [list(row) for row in now], count
    return tuple(map(tuple, best))


def _sweep(rows: list[list[Item]], beside: Mapping[Item, Sequence[Item]], *, downwards: bool) -> None:
    order = range(1, len(rows)) if downwards else range(len(rows) - 2, -1, -1)
    for index in order:
        fixed = rows[index - 1 if downwards else index + 1]
        place = {item: number for number, item in enumerate(fixed)}
        own = {item: number * max(1, len(fixed)) / max(1, len(rows[index])) for number, item in enumerate(rows[index])}
        rows[index].sort(key=lambda item: _centre([place[each] for each in beside.get(item, ())], own[item]))


def _centre(places: Sequence[int], otherwise: float) -> float:
    return sum(places) / len(places) if places else otherwise


def _crossings(rows: Sequence[Sequence[Item]], below: Mapping[Item, Sequence[Item]]) -> int:
    total = 0
    for upper, lower in pairwise(rows):
        place = {item: number for number, item in enumerate(lower)}
        seen: list[int] = []
        for item in upper:
            targets = [place[each] for each in below.get(item, ())]
            total += sum(len(seen) - bisect_right(seen, target) for target in targets)
            for target in targets:
                insort(seen, target)
    return total
