"""How far a sink has come, in which ledger: what it remembers beside the records."""

from __future__ import annotations

import secrets

import msgspec
from msgspec import Struct

from queue_backends import StateStore
from worker.errors import BadSetting

LEDGER_KEY = "usage:ledger"


class Place(Struct, frozen=True, kw_only=True):
    """A place in a ledger. A sink keeps it as a text that it need not understand."""

    ledger: str = ""
    """Which ledger: a cursor means something else, or nothing, in another one."""
    cursor: str = ""
    at: float = 0.0
    """When the last record was written that has been carried over; Unix seconds."""

    def __str__(self) -> str:
        """The text."""
        return msgspec.json.encode(self).decode()


def place_in(text: str, ledger: str) -> Place:
    """The place that a sink remembers; the beginning if it remembers none.

    Raises `BadSetting` if it is one of another ledger: going on there would pass over records without a word.
    """
    if not text:
        return Place(ledger=ledger)
    try:
        place = msgspec.json.decode(text, type=Place)
    except msgspec.MsgspecError as error:
        raise BadSetting(f"the cursor there is not one of a usage stream: {error}") from error
    if place.ledger != ledger:
        raise BadSetting("usage of another queue, or of this one before it was emptied, is there: choose another place")
    return place


async def ledger_id(state: StateStore) -> str:
    """The name that this ledger was given when it was first streamed. Raises `BackendUnavailable`."""
    while (found := await state.get(LEDGER_KEY)) is None:
        await state.compare_and_set(LEDGER_KEY, None, secrets.token_hex(6).encode())
    return found.decode()
