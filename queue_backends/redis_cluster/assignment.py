"""Which worker takes from which partitions. Pure: every worker computes the same from the same list of members.

Rendezvous hashing, bounded: of all pairs of a member and a partition the highest score wins, as long as both still have
room, so that shares differ by one at most, and a member that comes or goes moves little more than its own share. A
wrong or outdated assignment costs speed, never correctness: leases alone decide who has a task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item", str, int)
Bin = TypeVar("Bin", str, int)


def owned(member: str, members: Sequence[str], partitions: int) -> list[int]:
    """The partitions of one member; at least one, if it is a member. With more members than partitions, several
    members share a partition."""
    everyone = sorted(set(members))
    if member not in everyone:
        return list(range(partitions))
    numbers = list(range(partitions))
    if len(everyone) <= partitions:
        scores = {(number, name): _score(name, number) for number in numbers for name in everyone}
        owners = _spread(numbers, everyone, scores)
        return [number for number in numbers if owners[number] == member]
    scores_by_member = {(name, number): _score(name, number) for number in numbers for name in everyone}
    return [_spread(everyone, numbers, scores_by_member)[member]]


def _spread(items: Sequence[Item], bins: Sequence[Bin], scores: dict[tuple[Item, Bin], int]) -> dict[Item, Bin]:
    """Each item's bin; the bins' sizes differ by one at most."""
    least, larger = divmod(len(items), len(bins))
    sizes = dict.fromkeys(bins, 0)
    placed: dict[Item, Bin] = {}
    for item, to in sorted(scores, key=lambda pair: (scores[pair], pair), reverse=True):
        if item in placed or sizes[to] > least or (sizes[to] == least and not larger):
            continue
        if sizes[to] == least:
            larger -= 1
        sizes[to] += 1
        placed[item] = to
    return placed


def _score(member: str, partition: int) -> int:
    digest = hashlib.blake2b(f"{partition}/{member}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
