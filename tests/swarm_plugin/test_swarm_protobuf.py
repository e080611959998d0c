"""Our codec against Google's, on the protocol's own messages."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from queue_backends.protobuf import MalformedMessage, Message, decode, encode
from queue_backends.swarm_plugin import messages as ours

NAMES: dict[type[Message], str] = {
    ours.RunTaskMessage: "RunTaskMessage",
    ours.PollResponse: "PollResponse",
    ours.SubmitRequest: "SubmitRequest",
    ours.SubmitResponse: "SubmitResponse",
    ours.PollRequest: "PollRequest",
    ours.AckRequest: "AckRequest",
    ours.NackRequest: "NackRequest",
    ours.ResultsRequest: "ResultsRequest",
    ours.ResultsResponse: "ResultsResponse",
    ours.CancelRequest: "CancelRequest",
    ours.Empty: "AckResponse",
}

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(2**31), 2**31 - 1)
TASKS = st.builds(ours.PluginTask, id=TEXTS, prompt=TEXTS, meta=st.dictionaries(TEXTS, TEXTS, max_size=3))
RUNS = st.one_of(
    st.builds(
        ours.RunTaskRequest,
        task_id=TEXTS,
        prompt=TEXTS,
        model=TEXTS,
        max_tokens=NUMBERS,
        tools=st.lists(st.builds(ours.Tool, name=TEXTS, input_schema=st.binary(max_size=20)), max_size=3).map(tuple),
    ).map(lambda init: ours.RunTaskMessage(init=init)),
    st.builds(ours.ToolCallRequest, call_id=TEXTS, tool_name=TEXTS, input=st.binary(max_size=300)).map(
        lambda call: ours.RunTaskMessage(tool_call=call)
    ),
    st.builds(ours.ToolCallResult, call_id=TEXTS, output=TEXTS, error=TEXTS).map(
        lambda result: ours.RunTaskMessage(tool_result=result)
    ),
    st.builds(ours.TextChunk, text=TEXTS).map(lambda chunk: ours.RunTaskMessage(chunk=chunk)),
    st.builds(ours.Result, output=TEXTS, input_tokens=NUMBERS, output_tokens=NUMBERS, error=TEXTS).map(
        lambda result: ours.RunTaskMessage(result=result)
    ),
)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    RUNS,
    st.builds(ours.PollResponse, task=st.none() | TASKS),
    st.builds(ours.SubmitRequest, prompt=TEXTS, meta=st.dictionaries(TEXTS, TEXTS, max_size=3)),
    st.builds(ours.AckRequest, task=TASKS, result=TEXTS, input_tokens=NUMBERS, output_tokens=NUMBERS),
    st.builds(ours.NackRequest, task=TASKS, reason=TEXTS),
    st.builds(ours.ResultsRequest, task_ids=st.lists(TEXTS, max_size=3).map(tuple)),
    st.builds(
        ours.ResultsResponse,
        results=st.lists(st.builds(ours.PluginResult, task_id=TEXTS, output_tokens=NUMBERS), max_size=3).map(tuple),
    ),
    st.just(ours.Empty()),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=MESSAGES)
def test_both_codecs_read_and_write_the_same(generated: ModuleType, message: Message) -> None:
    """Google's code reads what we write as what it was, and we read what it writes."""
    theirs: Any = getattr(generated, NAMES[type(message)])()
    theirs.ParseFromString(encode(message))
    assert decode(type(message), theirs.SerializeToString()) == message
    assert decode(type(message), encode(message)) == message
    assert theirs.ByteSize() == len(encode(message))


def test_an_empty_payload_is_still_that_payload(generated: ModuleType) -> None:
    """An empty chunk is a chunk, not nothing."""
    message = generated.RunTaskMessage(chunk=generated.Chunk())
    assert decode(ours.RunTaskMessage, message.SerializeToString()) == ours.RunTaskMessage(chunk=ours.TextChunk())
    again = generated.RunTaskMessage.FromString(encode(ours.RunTaskMessage(chunk=ours.TextChunk())))
    assert again.WhichOneof("payload") == "chunk"


def test_fields_of_a_later_protocol_are_skipped(generated: ModuleType) -> None:
    """Whatever their wire type."""
    message = generated.Task(id="1", prompt="p").SerializeToString()
    later = b"\xf8\x01\x05" + b"\xf9\x01" + bytes(8) + b"\xfd\x01" + bytes(4) + b"\xfa\x01\x02ab"
    assert decode(ours.PluginTask, later + message) == ours.PluginTask(id="1", prompt="p")


@pytest.mark.parametrize(
    "data",
    [b"\x0a", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"\x08\x01", b"\x0b", b"\xff" * 11, b"\x80"],
    ids=["no length", "cut off", "no UTF-8", "number for text", "group", "endless number", "open number"],
)
def test_what_is_no_message_is_an_error(data: bytes) -> None:
    """And never a wrong value or another exception."""
    with pytest.raises(MalformedMessage):
        decode(ours.PluginTask, data)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    """Nothing that a peer sends can do more than fail to be read."""
    for kind in NAMES:
        try:
            decode(kind, data)
        except MalformedMessage:
            continue
