"""How the items of an answer survive in our messages, so that they go back on the next turn as they came. Pure.

The vendor wants reasoning back unchanged, in its place before the message or call that followed from it, and it knows
the items by their ids (https://platform.openai.com/docs/guides/reasoning#keeping-reasoning-items-in-context). Our text
parts and tool calls have no place for those ids. So every `ThinkingPart` of this protocol carries, next to the text
that people read,

- in `signature` the reasoning item itself, as JSON; empty if there was none,
- in `redacted` what else is to be known of the answer from here on, a `Carried` as JSON; empty if nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from providers.messages import Message, Part, ThinkingPart
from queue_backends.messages import JsonObject


class Carried(Struct, frozen=True, omit_defaults=True):
    """What our own parts cannot hold."""

    response_id: str = ""
    """The response to go on from, where the vendor stores it."""
    items: tuple[JsonObject, ...] = ()
    """The items between this reasoning and the next, in order: messages and calls without what our parts hold, others
    (a web search's, say) whole."""


_carried_decoder = msgspec.json.Decoder(Carried)
_item_decoder = msgspec.json.Decoder(dict[str, Any])

_KEPT = {"message": ("type", "id", "phase"), "function_call": ("type", "id", "namespace")}


def skeleton(item: JsonObject) -> JsonObject:
    """What has to be kept of an item that our parts hold; all of any other."""
    names = _KEPT.get(str(item.get("type")))
    return item if names is None else {name: item[name] for name in names if item.get(name)}


def thinking_part(
    provider: str, *, text: str = "", reasoning: bytes = b"", response_id: str = "", items: Sequence[JsonObject] = ()
) -> ThinkingPart:
    """The part that carries a reasoning item, or only what comes after it."""
    carried = Carried(response_id, tuple(items))
    return ThinkingPart(
        text=text,
        signature=reasoning.decode(),
        redacted="" if carried == Carried() else msgspec.json.encode(carried).decode(),
        provider=provider,
    )


def is_worth_carrying(items: Iterable[JsonObject]) -> bool:
    """Whether items without any reasoning before them have to be known on the next turn. Plain ids need not be."""
    return any(item.get("phase") or str(item.get("type")) not in _KEPT for item in items)


def carried_by(part: Part, provider: str) -> Carried | None:
    """What a part carries; None if it is no reasoning of this provider's. Nothing, if it is unreadable."""
    if not isinstance(part, ThinkingPart) or part.provider != provider:
        return None
    try:
        return _carried_decoder.decode(part.redacted) if part.redacted else Carried()
    except msgspec.DecodeError:
        return Carried()


def reasoning_item(part: ThinkingPart) -> JsonObject | None:
    """The reasoning item that a part carries, if it can be of use to a server that has not stored it."""
    try:
        item = _item_decoder.decode(part.signature) if part.signature else {}
    except msgspec.DecodeError:
        return None
    # Open models' servers have reasoning in the clear instead. With neither there is just a name that nobody knows.
    return item if item.get("encrypted_content") or item.get("content") else None


def stored_turn(messages: Sequence[Message], provider: str) -> tuple[str, int]:
    """The last response that the vendor has stored, and the number of messages up to it, its own included."""
    for index in range(len(messages) - 1, -1, -1):
        for part in messages[index].parts:
            carried = carried_by(part, provider)
            if carried is not None and carried.response_id:
                return carried.response_id, index + 1
    return "", 0
