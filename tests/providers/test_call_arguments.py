"""Arguments that a model wrote, as the object that some vendors want back."""

from __future__ import annotations

import msgspec
import pytest

from providers.call_arguments import arguments_object
from providers.messages import ToolCall
from providers.tool_loop import arguments_of


@pytest.mark.parametrize(("arguments", "sent"), [('{"b":1, "a":2.50}', '{"b":1, "a":2.50}'), ("", "{}")])
def test_objects_stay_as_they_are(arguments: str, sent: str) -> None:
    """Byte for byte: a cache of the conversation's beginning is worth nothing otherwise."""
    assert msgspec.json.encode(arguments_object(arguments)).decode() == sent


@pytest.mark.parametrize("arguments", ["[1]", "null", '{"a":', '{"a":' + "[" * 5000 + "]" * 5000 + "}"])
def test_what_is_no_object_is_shown(arguments: str) -> None:
    """Cut, of another type, or nested so deep that nobody reads it: the model sees what it wrote."""
    assert arguments_object(arguments) == {"invalid_arguments": arguments}


@pytest.mark.parametrize("arguments", ['{"a":', "[" * 5000 + "]" * 5000])
def test_consumers_see_what_the_model_wrote(arguments: str) -> None:
    """A run does not end because a model wrote no JSON: the tool's outcome says so."""
    assert arguments_of(ToolCall(id="1", name="look", arguments=arguments)) == arguments
