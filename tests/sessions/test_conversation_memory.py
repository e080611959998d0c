"""What of a conversation a run begins with: bounded, sound, the newest of it, and a summary of the rest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from providers import ImagePart, Message, Role, TextPart, ToolCall, ToolOutcome
from queue_backends.messages import encode_json
from worker.agents.model import Memory
from worker.call_estimates import message_tokens
from worker.sessions.conversation_bounds import MOST_BYTES, bounded
from worker.sessions.conversation_log import (
    Dropped,
    Exchange,
    Kept,
    Record,
    Summary,
    SummaryAsked,
    exchanges_of,
    kept_of,
    sound,
)
from worker.sessions.conversation_memory import SUMMARY_HEADING, recollect, summary_prompt

NOW = 1_000_000.0
_SLACK_TOKENS = 40
"""What notes such as "the rest is left out" may come to beyond the limit."""


def exchange(task_id: str, size: int = 40, turns: int = 0, error: str = "") -> Exchange:
    """An exchange with so many tool turns, each text and outcome of `size` characters."""
    answered: list[Message] = []
    for turn in range(turns):
        call = ToolCall(id=f"{task_id}.{turn}", name="look")
        answered.append(Message(role=Role.ASSISTANT, parts=(TextPart(text="t" * size), call)))
        outcome = ToolOutcome(call_id=call.id, name="look", content="o" * size)
        answered.append(Message(role=Role.USER, parts=(outcome,)))
    if not error:
        answered.append(Message.assistant("a" * size))
    asked = (Message.user(f"{task_id} {'q' * size}"),)
    return Exchange(task_id=task_id, asked=asked, answered=tuple(answered), error=error)


exchanges = st.lists(
    st.builds(
        lambda size, turns, error: (size, turns, error),
        st.integers(0, 2000),
        st.integers(0, 4),
        st.sampled_from(["", "", "run cancelled"]),
    ),
    max_size=12,
).map(lambda kinds: tuple(exchange(f"t{number}", *kind) for number, kind in enumerate(kinds)))
summaries = st.none() | st.integers(0, 3000).map(lambda size: Summary(task_id="s", key="k", up_to="x", text="s" * size))


def assert_sound(messages: tuple[Message, ...]) -> None:
    """Sides alternate, the user begins, the assistant ends; each call has its outcome in the message after it."""
    roles = [message.role for message in messages]
    assert roles == [Role.USER, Role.ASSISTANT] * (len(roles) // 2)
    for number, message in enumerate(messages):
        outcomes = [part.call_id for part in message.parts if isinstance(part, ToolOutcome)]
        calls = [call.id for call in messages[number - 1].tool_calls] if number else []
        assert sorted(outcomes) == sorted(calls)


@given(exchanges, summaries, st.integers(1, 3000), st.integers(1, 40))
def test_what_is_recalled_is_sound_and_bounded(
    kept: tuple[Exchange, ...], summary: Summary | None, max_tokens: int, max_messages: int
) -> None:
    """Whatever was said and however little is allowed: no torn tool call, alternating sides, within the limits, and
    nothing newer is missing while something older is there."""
    memory = Memory(max_tokens=max_tokens, max_messages=max_messages)
    recalled = recollect(Kept(exchanges=kept, summary=summary), memory, now=NOW)
    assert_sound(recalled.messages)
    assert sum(message_tokens(each) for each in recalled.messages) <= max_tokens + _SLACK_TOKENS
    assert len(recalled.messages) <= max_messages + 3
    assert recalled.left_out == kept[: len(recalled.left_out)]
    texts = " ".join(message.text for message in recalled.messages)
    there = [each.task_id for each in kept if f"{each.task_id} " in texts]
    assert there == [each.task_id for each in kept[len(kept) - len(there) :]]


@given(exchanges, st.integers(1, 3000))
def test_what_is_left_out_is_summed_up(kept: tuple[Exchange, ...], max_tokens: int) -> None:
    """A summary is due exactly when something is left out beside the newest exchange; it covers at least that, and
    never the newest exchange."""
    memory = Memory(max_tokens=max_tokens)
    recalled = recollect(Kept(exchanges=kept), memory, now=NOW)
    assert recalled.to_sum_up == kept[: len(recalled.to_sum_up)]
    assert bool(recalled.to_sum_up) == bool(recalled.left_out)
    assert len(recalled.to_sum_up) >= len(recalled.left_out) - (len(recalled.left_out) == len(kept))
    assert recalled.to_sum_up == () or kept[-1] not in recalled.to_sum_up
    silent = recollect(Kept(exchanges=kept), Memory(max_tokens=max_tokens, summarise=False), now=NOW)
    assert silent.to_sum_up == ()
    assert silent.messages == recalled.messages


@given(st.lists(st.sampled_from("uUaAcCoO"), max_size=12))
def test_any_conversation_becomes_sound(kinds: list[str]) -> None:
    """Messages in any order, calls without outcomes, outcomes without calls: what comes out has none of that, and
    loses no text."""
    messages = [_message(kind, number) for number, kind in enumerate(kinds)]
    result = sound(messages)
    for number, message in enumerate(result):
        outcomes = [part.call_id for part in message.parts if isinstance(part, ToolOutcome)]
        before = [call.id for call in result[number - 1].tool_calls] if number else []
        assert sorted(outcomes) == sorted(before)
        assert message.parts
    assert not result or not result[-1].tool_calls
    assert "".join(each.text for each in result) == "".join(each.text for each in messages)
    assert sound(result) == result


def _message(kind: str, number: int) -> Message:
    call = ToolCall(id="same" if kind.isupper() else f"c{number}", name="look")
    match kind.lower():
        case "u":
            return Message.user(f"u{number}")
        case "a":
            return Message.assistant(f"a{number}")
        case "c":
            return Message(role=Role.ASSISTANT, parts=(TextPart(text=f"c{number}"), call))
    return Message(role=Role.USER, parts=(ToolOutcome(call_id=call.id, name="look", content="x"),))


def test_outcomes_of_the_next_exchange_belong_to_the_calls_before() -> None:
    """A run that ended with calls for its client, whose outcomes come with the next question: both stay together."""
    call = ToolCall(id="c1", name="ask")
    outcome = ToolOutcome(call_id="c1", name="ask", content="yes")
    first = Exchange(task_id="t1", asked=(Message.user("do"),), answered=(Message(role=Role.ASSISTANT, parts=(call,)),))
    second = Exchange(
        task_id="t2",
        asked=(Message(role=Role.USER, parts=(outcome,)), Message.user("go on")),
        answered=(Message.assistant("done"),),
    )
    recalled = recollect(Kept(exchanges=(first, second)), Memory(), now=NOW)
    assert [message.parts for message in recalled.messages] == [
        (TextPart(text="do"),),
        (call,),
        (outcome, TextPart(text="go on")),
        (TextPart(text="done"),),
    ]


def test_a_newest_exchange_that_is_too_long_is_shortened() -> None:
    """Its question stays, and the last of its turns; the summary stands before it."""
    long = exchange("t1", size=400, turns=6)
    kept = Kept(exchanges=(long,), summary=Summary(task_id="s", key="k", up_to="t0", text="they met"))
    recalled = recollect(kept, Memory(max_tokens=600), now=NOW)
    assert_sound(recalled.messages)
    assert recalled.messages[0].text.startswith(f"{SUMMARY_HEADING}\nthey met\n\nt1 ")
    assert recalled.messages[-1].text == "a" * 400
    assert 2 < len(recalled.messages) < len(long.messages)


def test_a_summary_under_way_is_not_asked_for_again() -> None:
    """While a summary that covers what is left out is being made, no other is due; one that failed is asked anew."""
    kept = tuple(exchange(f"t{number}", size=400) for number in range(10))
    memory = Memory(max_tokens=1000)
    due = recollect(Kept(exchanges=kept), memory, now=NOW).to_sum_up
    asked = SummaryAsked(task_id="x", key="k", up_to=due[-1].task_id, at=NOW - 5)
    assert recollect(Kept(exchanges=kept, asked=asked), memory, now=NOW).to_sum_up == ()
    assert recollect(Kept(exchanges=kept, asked=asked), memory, now=NOW + 3600).to_sum_up == due
    early = SummaryAsked(task_id="x", key="k", up_to="t0", at=NOW - 5)
    assert recollect(Kept(exchanges=kept, asked=early), memory, now=NOW).to_sum_up == due


def test_records_come_to_a_conversation() -> None:
    """Of a task the latest record counts, where it stands; what was taken back does not; a summary hides what it
    covers, if it was asked for."""
    again = exchange("t1", size=3)
    records: list[Record] = [
        exchange("t0"),
        exchange("t1", error="worker lost"),
        exchange("t2"),
        again,
        exchange("t3"),
        Dropped(task_id="t3"),
        Summary(task_id="s0", key="forged", up_to="t1", text="lies"),
    ]
    assert [each.task_id for each in exchanges_of(records)] == ["t0", "t2", "t1"]
    assert exchanges_of(records)[-1] == again
    assert kept_of(records, is_whole=True).summary is None
    records += [
        SummaryAsked(task_id="t2", key="k", up_to="t2", at=NOW),
        Summary(task_id="s1", key="k", up_to="t2", text="it began"),
    ]
    kept = kept_of(records, is_whole=False)
    assert [each.task_id for each in kept.exchanges] == ["t1"]
    assert kept.summary is not None
    assert kept.summary.text == "it began"
    assert kept.asked is None
    assert kept.is_whole
    assert [each.task_id for each in kept_of(records, is_whole=True, without="t1").exchanges] == []


def test_a_task_that_is_brought_back_does_not_hide_what_was_said_meanwhile() -> None:
    """A summary covers all up to a failed task; that task is requeued later and stands at the end: what was said since
    the summary is still there, and so is its answer."""
    records: list[Record] = [
        exchange("t0"),
        exchange("t1", error="worker lost"),
        exchange("t2"),
        SummaryAsked(task_id="t3", key="k", up_to="t1", at=NOW),
        exchange("t3"),
        Summary(task_id="s1", key="k", up_to="t1", text="it began"),
        exchange("t1"),
    ]
    assert [each.task_id for each in kept_of(records, is_whole=True).exchanges] == ["t2", "t3", "t1"]


def test_the_summary_that_covers_most_counts() -> None:
    """Of two that were asked for, the earlier is written last: it takes nothing of the other away."""
    records: list[Record] = [
        exchange("t0"),
        exchange("t1"),
        SummaryAsked(task_id="t2", key="slow", up_to="t0", at=NOW),
        exchange("t2"),
        SummaryAsked(task_id="t3", key="fast", up_to="t1", at=NOW),
        exchange("t3"),
        Summary(task_id="s1", key="fast", up_to="t1", text="much"),
        Summary(task_id="s0", key="slow", up_to="t0", text="little"),
    ]
    kept = kept_of(records, is_whole=True)
    assert kept.summary is not None
    assert kept.summary.text == "much"
    assert [each.task_id for each in kept.exchanges] == ["t2", "t3"]


def test_a_summarys_prompt_has_everything_and_a_limit() -> None:
    """Words, calls and outcomes of both sides, and the summary before; of too much the end."""
    image = Message(role=Role.USER, parts=(ImagePart(url="https://x/y.png"), TextPart(text="look")))
    some = Exchange(task_id="t9", asked=(image,), answered=(Message.assistant("a cat"),))
    prompt = summary_prompt("they met", [exchange("t1", size=10, turns=1), some], 1000)
    for part in ("they met", "User: t1 ", "Assistant calls look: {}", "look answers: oooooooooo", "Assistant: a cat"):
        assert part in prompt
    short = summary_prompt("", [exchange("t1", size=9000), exchange("t2", size=20)], 100)
    assert len(short) < 1000
    assert "t2" in short
    assert "t1" not in short


def test_a_record_has_a_bound() -> None:
    """However long an exchange is, its record stays below what every store takes, and sound; a short one is kept as it
    is."""
    short = exchange("t1", size=1000, turns=3)
    assert bounded(short) == short
    for size, turns in ((200_000, 4), (20_000, 200), (2_000, 3000)):
        cut = bounded(exchange("t2", size=size, turns=turns))
        assert len(encode_json(cut)) <= MOST_BYTES
        assert cut.answered
        recalled = recollect(Kept(exchanges=(cut,)), Memory(max_tokens=100_000), now=NOW)
        assert_sound(recalled.messages)
