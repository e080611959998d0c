"""The lines between two rows of a drawing in a terminal: which column and which track each takes, so that no two lie on
each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from worker.teams.graph.layers import Item, Link


class Net(Struct, kw_only=True):
    """Lines that belong together: all from some items of the upper row to the same items of the lower one."""

    sources: list[Item]
    targets: tuple[Item, ...]
    tops: list[int] = []
    """Columns where it begins."""
    bottoms: list[tuple[int, Item]] = []
    """Columns where it ends, and at what."""
    track: int = -1
    """From 0 at the top; -1: it needs none, it leads straight down."""

    @property
    def span(self) -> tuple[int, int]:
        """The columns that it reaches over."""
        columns = [*self.tops, *(column for column, _ in self.bottoms)]
        return min(columns), max(columns)


def nets_between(
    links: Sequence[Link], middle: Mapping[Item, int], reach: Callable[[Item], int]
) -> tuple[list[Net], int] | None:
    """The nets and how many tracks they need. `reach`: how far from its middle an item can be entered. None: they would
    lie on each other."""
    targets: dict[Item, list[Item]] = defaultdict(list)
    for upper, lower in links:
        targets[upper].append(lower)
    nets: dict[tuple[Item, ...], Net] = {}
    for upper, lowers in sorted(targets.items(), key=lambda pair: middle[pair[0]]):
        key = tuple(sorted(lowers, key=lambda item: middle[item]))
        nets.setdefault(key, Net(sources=[], targets=key, tops=[])).sources.append(upper)
    found = list(nets.values())
    for net in found:
        net.tops = [middle[item] for item in net.sources]
    _enter(found, middle, reach)
    tracks = _tracks(found)
    return None if tracks is None else (found, tracks)


def _enter(nets: Sequence[Net], middle: Mapping[Item, int], reach: Callable[[Item], int]) -> None:
    """Choose where each net enters what it leads to: not below where another one begins."""
    begins = {column: net for net in nets for column in net.tops}
    entering: dict[Item, list[Net]] = defaultdict(list)
    for net in nets:
        net.bottoms = []
        for item in net.targets:
            entering[item].append(net)
    for item, incoming in entering.items():
        incoming.sort(key=lambda net: sum(net.tops) / len(net.tops))
        taken: set[int] = set()
        for place, net in enumerate(incoming):
            near = [top for top in net.tops if len(incoming) == 1 and abs(top - middle[item]) <= reach(item)]
            wanted = near[0] if near else middle[item] + 2 * place - (len(incoming) - 1)
            column = _free(wanted, middle[item], reach(item), taken, begins, net)
            taken |= {column - 1, column, column + 1} if reach(item) > len(incoming) else {column}
            net.bottoms.append((column, item))


def _free(wanted: int, middle: int, reach: int, taken: set[int], begins: Mapping[int, Net], net: Net) -> int:
    candidates = sorted(range(middle - reach, middle + reach + 1), key=lambda column: (abs(column - wanted), column))
    for column in candidates:
        if column not in taken and begins.get(column, net) is net:
            return column
    return middle


def _tracks(nets: Sequence[Net]) -> int | None:
    """Give each net its track; how many there are. None: there is no order in which they could be."""
    bent = [net for net in nets if len({*net.tops, *(column for column, _ in net.bottoms)}) > 1]
    straight = {net.tops[0] for net in nets if len({*net.tops, *(column for column, _ in net.bottoms)}) == 1}
    if any(column in straight for net in bent for column in (*net.tops, *(place for place, _ in net.bottoms))):
        return None
    begins = {column: index for index, net in enumerate(bent) for column in net.tops}
    below: dict[int, set[int]] = defaultdict(set)
    for index, net in enumerate(bent):
        for column, _ in net.bottoms:
            other = begins.get(column)
            if other is not None and other != index:
                below[index].add(other)
    rows: list[list[tuple[int, int]]] = []
    left = set(range(len(bent)))
    while left:
        ready = [index for index in left if not below[index] & left]
        if not ready:
            return None
        for index in sorted(ready, key=lambda each: bent[each].span):
            left.discard(index)
            least = max((bent[other].track + 1 for other in below[index]), default=0)
            bent[index].track = _track(rows, bent[index].span, least)
    return len(rows)


def _track(rows: list[list[tuple[int, int]]], span: tuple[int, int], least: int) -> int:
    for track in range(least, len(rows)):
        if all(span[1] + 1 < left or right + 1 < span[0] for left, right in rows[track]):
            rows[track].append(span)
            return track
    while len(rows) <= least:
        rows.append([])
    if rows[-1]:
        rows.append([])
    rows[-1].append(span)
    return len(rows) - 1
