"""A tool call's arguments, for vendors that want them as an object. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from providers.decoding import UNREADABLE

_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def arguments_object(arguments: str) -> Any:
    """The object that the model wrote, as it wrote it. What is none becomes one, so that the model sees its mistake."""
    raw = arguments.encode() or b"{}"
    try:
        _object_decoder.decode(raw)
    except UNREADABLE:
        return {"invalid_arguments": arguments}
    return msgspec.Raw(raw)
