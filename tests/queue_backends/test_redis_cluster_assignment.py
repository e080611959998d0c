"""Which worker takes from which partitions: even shares, little movement, the same answer everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queue_backends.redis_cluster.assignment import owned

NAMES = st.lists(st.text("abcdefgh-0123456789", min_size=1, max_size=12), min_size=1, max_size=12, unique=True)
PARTITIONS = st.sampled_from([1, 2, 3, 4, 7, 8, 16, 32])


def shares(members: list[str], partitions: int) -> dict[str, list[int]]:
    """Every member's own."""
    return {member: owned(member, members, partitions) for member in members}


@settings(deadline=None, max_examples=60)
@given(NAMES, PARTITIONS)
def test_shares_are_even_and_leave_nothing_out(members: list[str], partitions: int) -> None:
    """Each partition has a worker and each worker a partition; no worker, or partition, has two more than another."""
    found = shares(members, partitions)
    workers_of = [sum(number in share for share in found.values()) for number in range(partitions)]
    sizes = [len(share) for share in found.values()]
    assert min(workers_of) >= 1
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert max(workers_of) - min(workers_of) <= 1
    if len(members) <= partitions:
        assert set(workers_of) == {1}


@settings(deadline=None, max_examples=60)
@given(NAMES, PARTITIONS, st.randoms(use_true_random=False))
def test_everybody_computes_the_same(members: list[str], partitions: int, random: object) -> None:
    """The order in which members are listed does not matter."""
    shuffled = sorted(members, key=lambda member: hash((member, str(random))))
    assert shares(shuffled, partitions) == shares(members, partitions)


@settings(deadline=None, max_examples=80)
@given(NAMES.filter(lambda names: len(names) > 1), PARTITIONS)
def test_who_leaves_moves_little_more_than_its_share(members: list[str], partitions: int) -> None:
    """Of the partitions that stay with somebody who stays, nearly all stay where they were."""
    leaver, *rest = members
    before, after = shares(members, partitions), shares(rest, partitions)
    if len(members) > partitions:
        moved = sum(before[member] != after[member] for member in rest)
        assert moved <= 1 + len(rest) // 2
        return
    kept = [number for number in range(partitions) if number not in before[leaver]]
    old = {number: member for member, share in before.items() for number in share}
    new = {number: member for member, share in after.items() for number in share}
    assert sum(old[number] != new[number] for number in kept) <= 1 + partitions // 4


def test_who_is_no_member_takes_from_all() -> None:
    """A worker whose own entry has not arrived yet leaves nothing lying."""
    assert owned("stranger", ["a", "b"], 4) == [0, 1, 2, 3]


@pytest.mark.parametrize("members", [3, 40])
def test_a_crowd_is_spread_evenly(members: int) -> None:
    """With more workers than partitions each has one, and the partitions have as many workers each."""
    names = [f"worker-{number}" for number in range(members)]
    found = shares(names, 2)
    assert all(len(share) == 1 for share in found.values())
    assert sorted(sum(number in share for share in found.values()) for number in range(2)) == [
        members // 2,
        members - members // 2,
    ]
