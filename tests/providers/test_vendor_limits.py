"""What vendors tell of their rate limits, from the headers to the record of a model call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest

from providers import (
    AgentConfig,
    ChatProvider,
    LimitsSeen,
    LimitWindow,
    Message,
    RateLimited,
    Role,
    StopReason,
    TextPart,
    TurnEnd,
    TurnEvent,
    TurnRequest,
    VendorLimits,
    create,
    tool_loop,
)
from providers.calls import Call, Limits
from providers.replay_server import ReplayServer, Reply
from providers.retry import is_gated
from providers.tool_loop import TurnRecord
from providers.transport import Transport
from queue_backends import ChunkType, Task, TokenUsage

NOW = 1_763_700_000.0  # 2025-11-21T04:40:00Z
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "4000",
    "anthropic-ratelimit-requests-remaining": "3999",
    "anthropic-ratelimit-requests-reset": "2025-11-21T04:40:01Z",
    "anthropic-ratelimit-input-tokens-limit": "2000000",
    "anthropic-ratelimit-input-tokens-remaining": "1998000",
    "anthropic-ratelimit-input-tokens-reset": "2025-11-21T04:39:59Z",
    "anthropic-ratelimit-output-tokens-limit": "400000",
    "anthropic-ratelimit-output-tokens-remaining": "0",
    "anthropic-ratelimit-output-tokens-reset": "2025-11-21T04:41:00Z",
}
ANTHROPIC_LIMITS = VendorLimits(
    requests=LimitWindow(limit=4000, remaining=3999, reset_s=1.0, window_s=60.0),
    input_tokens=LimitWindow(limit=2_000_000, remaining=1_998_000, reset_s=0.0, window_s=60.0),
    output_tokens=LimitWindow(limit=400_000, remaining=0, reset_s=60.0, window_s=60.0),
)


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        (ANTHROPIC, ANTHROPIC_LIMITS),
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-limit-tokens": "150000",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            VendorLimits(
                requests=LimitWindow(limit=60, remaining=59, reset_s=1.0, window_s=60.0),
                tokens=LimitWindow(limit=150_000, remaining=149_984, reset_s=360.0, window_s=60.0),
            ),
        ),
        (
            {"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-tokens": "12"},
            VendorLimits(
                requests=LimitWindow(remaining=9, window_s=60.0), tokens=LimitWindow(reset_s=12.0, window_s=60.0)
            ),
        ),
        (
            {"x-ratelimit-limit-tokens-prompt": "100", "x-ratelimit-remaining-tokens-generated": "7"},
            VendorLimits(
                input_tokens=LimitWindow(limit=100, window_s=60.0),
                output_tokens=LimitWindow(remaining=7, window_s=60.0),
            ),
        ),
        (
            {"ratelimit-limit": "100, 100;w=10", "ratelimit-remaining": "50", "ratelimit-reset": "5"},
            VendorLimits(requests=LimitWindow(limit=100, remaining=50, reset_s=5.0, window_s=10.0)),
        ),
        (
            {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0", "x-ratelimit-reset": f"{NOW + 30:.0f}000"},
            VendorLimits(requests=LimitWindow(limit=20, remaining=0, reset_s=30.0)),
        ),
        ({"x-ratelimit-limit-requests": "many", "ratelimit-remaining": "-3"}, None),
        ({"content-type": "text/plain", "retry-after": "3"}, None),
    ],
)
def test_headers_of_each_vendor(headers: Mapping[str, str], limits: VendorLimits | None) -> None:
    """Limit, rest and reset of each kind, whatever the vendor calls them; what cannot be read counts as absent."""
    assert VendorLimits.from_headers(headers, NOW) == limits


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """A transport that would wait for hours rather than for nothing."""
    transport = Transport(clock=lambda: NOW)
    yield transport
    await transport.aclose()


def _call(url: str) -> Call:
    return Call(provider="acme", url=url + "/v1/chat", body=b"{}")


async def test_a_stream_tells_its_limits(transport: Transport) -> None:
    """The stream of an answer carries what its headers say."""
    reply = Reply(frames=(b"data: one\n\n",), headers=ANTHROPIC)
    async with ReplayServer([reply]) as server, transport.stream_events(_call(server.url), Limits()) as events:
        assert events.limits == ANTHROPIC_LIMITS


async def test_a_refusal_tells_its_limits(transport: Transport) -> None:
    """So does the error of a call that was refused."""
    reply = Reply(status=429, headers={**ANTHROPIC, "retry-after": "7"}, content_type="application/json")
    async with ReplayServer([reply]) as server:
        with pytest.raises(RateLimited) as caught:
            await transport.post_json(_call(server.url), Limits(max_retries=0))
    assert caught.value.limits == ANTHROPIC_LIMITS
    assert caught.value.retry_after_s == 7.0


async def test_a_gated_call_is_not_repeated(transport: Transport) -> None:
    """Who stands in the gate of a fleet-wide limit waits there: the transport sends a refused call once."""
    refusal = Reply(status=429, headers={"retry-after": "0.001"})
    is_gated.set(True)
    async with ReplayServer([refusal] * 4) as server:
        with pytest.raises(RateLimited):
            await transport.post_json(_call(server.url), Limits(max_retries=3))
        assert len(server.requests) == 1
        is_gated.set(False)
        with pytest.raises(RateLimited):
            await transport.post_json(_call(server.url), Limits(max_retries=2))
        assert len(server.requests) == 4


class _Vendor(ChatProvider):
    """Refuses calls as often as told, then answers."""

    name = "vendor"

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        if self.refusals:
            self.refusals -= 1
            raise RateLimited("busy", retry_after_s=3.0, limits=ANTHROPIC_LIMITS)
        yield LimitsSeen(ANTHROPIC_LIMITS)
        answer = Message(role=Role.ASSISTANT, parts=(TextPart(text="well"),))
        yield TurnEnd(message=answer, stop_reason=StopReason.END_TURN, usage=TokenUsage(output_tokens=1))


class _Gatekeeper:
    """An observer that gates calls, or does not, and keeps their records."""

    def __init__(self, *, gates: bool) -> None:
        self.gates = gates
        self.records: list[TurnRecord] = []

    def finished_turn(self, turn: int, attempt: int) -> None:
        raise AssertionError("no turn was finished before")

    def goes_to(self, request: object, target: object) -> None:
        raise AssertionError("there is no router")

    def speaks(self, request: object) -> None:
        raise AssertionError("there is no router")

    async def before_turn(self, request: TurnRequest, used: TokenUsage) -> None:
        is_gated.set(self.gates)

    async def after_turn(self, record: TurnRecord) -> None:
        self.records.append(record)

    async def after_tool(self, call: object, outcome: object) -> None:
        raise AssertionError("there are no tools")


async def _run(provider: ChatProvider, keeper: _Gatekeeper, waits: list[float]) -> str:
    async def drop(kind: ChunkType, content: str, metadata: object = None, /) -> None:
        return

    async def no_tool(call: object) -> None:
        raise AssertionError("there are no tools")

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    config = AgentConfig(model="m", max_turn_restarts=2)
    run = await tool_loop.run(
        provider,
        config,
        Task(id="t", prompt="hello"),
        (),
        no_tool,  # type: ignore[arg-type]  # it is never called
        drop,
        keeper,
        sleep=sleep,
    )
    return run.output


async def test_the_record_of_a_call_has_its_limits() -> None:
    """What an adapter yields, and what an error carries, both get into the turn's record."""
    keeper = _Gatekeeper(gates=True)
    assert await _run(_Vendor(1), keeper, []) == "well"
    refused, answered = keeper.records
    assert (refused.rate_limited, refused.retry_after_s, refused.limits) == (True, 3.0, ANTHROPIC_LIMITS)
    assert (answered.rate_limited, answered.retry_after_s, answered.limits) == (False, None, ANTHROPIC_LIMITS)


async def test_a_gated_turn_starts_over_in_the_gate() -> None:
    """A refused call goes back to the gate, which knows when to send it: the loop itself waits for nothing."""
    waits: list[float] = []
    keeper = _Gatekeeper(gates=True)
    assert await _run(_Vendor(2), keeper, waits) == "well"
    assert [record.attempt for record in keeper.records] == [0, 1, 2]
    assert waits == []


async def test_refusals_are_not_repeated_for_ever() -> None:
    """A vendor that goes on refusing ends the run, as any other failure does."""
    keeper = _Gatekeeper(gates=True)
    with pytest.raises(RateLimited):
        await _run(_Vendor(9), keeper, [])
    assert len(keeper.records) == 3


async def test_without_a_gate_a_refusal_goes_up() -> None:
    """The transport has repeated what was worth it: the loop does not start again."""
    keeper = _Gatekeeper(gates=False)
    with pytest.raises(RateLimited):
        await _run(_Vendor(1), keeper, [])
    assert len(keeper.records) == 1


@pytest.mark.parametrize(("name", "path"), [("anthropic", ""), ("openai", "/v1")])
async def test_the_adapters_yield_limits_first(name: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything of the answer."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k" * 20)
    frames = {
        "anthropic": (
            b'data: {"type":"message_start","message":{"model":"m","usage":{"input_tokens":1,"output_tokens":1}}}\n\n',
            b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":"hi"}}\n\n',
            b'data: {"type":"content_block_stop","index":0}\n\n',
            b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}\n\n',
            b'data: {"type":"message_stop"}\n\n',
        ),
        "openai": (
            b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n',
            b"data: [DONE]\n\n",
        ),
    }[name]
    provider = create(name)
    assert isinstance(provider, ChatProvider)
    async with ReplayServer([Reply(frames=frames, headers={"x-ratelimit-limit-requests": "60"})]) as server:
        config = AgentConfig(model="m", provider=name, base_url=server.url + path)
        events = [e async for e in provider.stream_turn(TurnRequest(config=config, messages=(Message.user("x"),)))]
    await provider.aclose()
    assert events[0] == LimitsSeen(VendorLimits(requests=LimitWindow(limit=60, window_s=60.0)))
    assert isinstance(events[-1], TurnEnd)
