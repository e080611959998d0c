"""Draws the tasks of a workload from a seed: mostly short ones, some with tools, some long, some with trouble."""

from __future__ import annotations

import enum
import itertools
import random

from msgspec import Struct

from queue_backends import Priority
from tests.faults.plans import Plan, ToolUse, Trouble, Turn

TOOLS = ("pay", "look", "note", "count")
PASSING_TROUBLE = (
    (Trouble.RATE_LIMITED,),
    (Trouble.OVERLOADED,),
    (Trouble.FAILING, Trouble.FAILING),
    (Trouble.BROKEN,),
    (Trouble.BROKEN, Trouble.ERROR_EVENT),
    (Trouble.ERROR_EVENT,),
    (Trouble.SILENT,),
)

UNREADABLE: tuple[dict[bytes, bytes], ...] = (
    {b"text": b"no prompt at all"},
    {b"prompt": b""},
    {b"prompt": b"\xff\xfe no text"},
    {b"prompt": b"wrong number", b"attempt": b"many"},
    {b"prompt": b"wrong word", b"priority": b"urgent"},
    {b"prompt": b"no time", b"deadline": b"soon"},
    {b"prompt": b"not JSON", b"overrides": b"{model"},
    {b"prompt": b"wrong type", b"history": b'{"role": "user"}'},
    {b"prompt": b"no such agent", b"agent": b"nobody"},
)
"""Entries that no worker can run; each must end in the dead letters and hurt nobody."""


class Way(enum.StrEnum):
    """How a task comes into the queue."""

    CLIENT = "client"
    """Through our client, with an idempotency key, so that submitting again after a lost reply is safe."""
    OPERATOR = "operator"
    """As an ark operator does: a bare XADD, or a submit without a key where there is nothing of that kind. If its reply
    is lost, nobody knows whether the task exists."""
    GARBAGE = "garbage"


class Errand(Struct, frozen=True, kw_only=True):
    """One task of the workload, and what the engine does with it."""

    plan: Plan
    way: Way = Way.CLIENT
    fields: dict[bytes, bytes] = {}
    """Of garbage: the entry as it is written, where entries can be written without our client."""
    priority: Priority = Priority.NORMAL
    delay_s: float = 0.0
    """It becomes ready so long after it is submitted."""
    submits: int = 1
    """How often the engine submits it, with the same idempotency key."""
    cancel_after_s: float | None = None
    deadline_s: float | None = None
    """So long after it is submitted it is to be given up."""
    has_list: bool = False
    """Its text goes to a Redis list too, as ark has it, on engines that have lists."""
    watched: bool = False
    """A consumer follows its chunks live."""
    tenant: str = ""


def draw_errand(seed: int, number: int) -> Errand:
    """The `number`-th task of a seed's workload, always the same."""
    chance = random.Random(f"{seed} {number}")
    key = f"k{number}"
    if chance.random() < 0.02:
        return Errand(plan=Plan(key, ()), way=Way.GARBAGE, fields=chance.choice(UNREADABLE))
    plan = Plan(key, _turns(chance))
    if chance.random() < 0.05:
        return Errand(plan=plan, way=Way.OPERATOR, watched=chance.random() < 0.2)
    return Errand(
        plan=plan,
        priority=chance.choices(list(Priority), (1, 8, 1))[0],
        delay_s=chance.uniform(0.5, 4) if chance.random() < 0.06 else 0.0,
        submits=2 if chance.random() < 0.1 else 1,
        cancel_after_s=chance.uniform(0, 3) if chance.random() < 0.05 else None,
        watched=chance.random() < 0.1,
        tenant=chance.choice(("", "north", "south")),
        deadline_s=chance.uniform(0.2, 5) if chance.random() < 0.03 else None,
        has_list=chance.random() < 0.05,
    )


def draw_brisk(seed: int, count: int, longest_s: float) -> list[Errand]:
    """A seed's first tasks that take no longer than so, if nothing holds them up."""
    drawn = (draw_errand(seed, number) for number in itertools.count())
    return list(itertools.islice((errand for errand in drawn if errand.plan.least_s <= longest_s), count))


def _turns(chance: random.Random) -> tuple[Turn, ...]:
    if chance.random() < 0.01:
        return (Turn(2, trouble=(Trouble.REFUSED,)),)
    if chance.random() < 0.04:
        return (Turn(chance.randrange(60, 140), 0.04, padding=chance.choice((0, 0, 2000))),)
    count = chance.choices((1, 2, 3, 4), (3, 4, 2, 1))[0]
    return (*(_turn(chance, with_tools=True) for _ in range(count - 1)), _turn(chance, with_tools=False))


def _turn(chance: random.Random, *, with_tools: bool) -> Turn:
    tools = [ToolUse(chance.choice(TOOLS), chance.uniform(0, 0.6)) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
    return Turn(
        pieces=chance.randrange(1, 16),
        pause_s=round(chance.uniform(0, 0.25), 3),
        tools=tuple(tools) if with_tools else (),
        trouble=chance.choice(PASSING_TROUBLE) if chance.random() < 0.08 else (),
    )
