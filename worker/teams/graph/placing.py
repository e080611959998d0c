"""Where the items of each row stand: as near to what they are joined to as their neighbours let them.

Each row is placed so that the squares of the distances from where its items would like to be are least, while the order
and the gaps are kept: an isotonic regression, by pooling neighbours that push each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from worker.teams.graph.layers import Item, Passage, Rows

_SWEEPS = 6
_STRAIGHT = 10_000.0
"""How much more a passage pulls on a passage, so that long edges are straight, and rows do not drift after them."""
_PASSING = 0.05
"""Between a passage and a node: a line may go sideways there, and a row that gathers around a line would be out of line
with those above and below it."""
_STAYS = 0.05
"""How strongly each item stays where it is."""
_ANCHORED = 20.0
"""How strongly the rows of a level that was too wide stay below each other; else each would follow what it is joined
to, and the drawing would be as wide as if there were no rows."""


def place(rows: Rows, width_of: Callable[[Item], float], gap_of: Callable[[Item, Item], float]) -> dict[Item, float]:
    """The middle of each item; the leftmost item begins at 0."""
    above: dict[Item, list[Item]] = defaultdict(list)
    below: dict[Item, list[Item]] = defaultdict(list)
    for upper, lower in rows.links:
        above[lower].append(upper)
        below[upper].append(lower)
    offsets = [_offsets(row, width_of, gap_of) for row in rows.rows]
    at: dict[Item, float] = {}
    for row, offset in zip(rows.rows, offsets, strict=True):
        middle = (offset[0] + offset[-1]) / 2 if offset else 0.0
        at |= {item: own - middle for item, own in zip(row, offset, strict=True)}
    anchors: dict[Item, float] = {
        item: at[item] for index in rows.parted for item in rows.rows[index] if isinstance(item, str)
    }
    places = range(len(rows.rows))
    for sweep in range(_SWEEPS):
        beside = (above, below)[sweep % 2]
        for index in places if sweep % 2 == 0 else reversed(places):
            _settle(rows.rows[index], offsets[index], (beside,), at, anchors)
    for index in places:
        _settle(rows.rows[index], offsets[index], (above, below), at, anchors)
    left = min((at[item] - width_of(item) / 2 for item in at), default=0.0)
    return {item: middle - left for item, middle in at.items()}


def _offsets(
    row: Sequence[Item], width_of: Callable[[Item], float], gap_of: Callable[[Item, Item], float]
) -> list[float]:
    """How far each is from the first, if nothing is between them but the gap."""
    found = [0.0] * bool(row)
    for before, item in pairwise(row):
        found.append(found[-1] + (width_of(before) + width_of(item)) / 2 + gap_of(before, item))
    return found


def _settle(
    row: Sequence[Item],
    offsets: Sequence[float],
    sides: Sequence[Mapping[Item, Sequence[Item]]],
    at: dict[Item, float],
    anchors: Mapping[Item, float],
) -> None:
    wanted, weights = [], []
    for item, offset in zip(row, offsets, strict=True):
        pulls = [(at[other], _pull(item, other)) for beside in sides for other in beside.get(item, ())]
        pulls.append((at[item], _STAYS))
        if item in anchors:
            pulls.append((anchors[item], _ANCHORED))
        weight = sum(pull for _, pull in pulls)
        wanted.append(sum(place * pull for place, pull in pulls) / weight - offset)
        weights.append(weight)
    for item, offset, value in zip(row, offsets, _rising(wanted, weights), strict=True):
        at[item] = value + offset


def _pull(item: Item, other: Item) -> float:
    if isinstance(item, Passage) is isinstance(other, Passage):
        return _STRAIGHT if isinstance(item, Passage) else 1.0
    return _PASSING


def _rising(wanted: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The sequence nearest to `wanted` that never falls."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(wanted, weights, strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] > block[0]:
            before = blocks.pop()
            joint = before[1] + block[1]
            mean = (before[0] * before[1] + block[0] * block[1]) / joint
            block = (mean, joint, before[2] + block[2])
        blocks.append(block)
    return [value for value, _, count in blocks for _ in range(count)]
