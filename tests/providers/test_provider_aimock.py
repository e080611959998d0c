"""Whole runs against an independent mock of the vendors, which plays a script and breaks it on demand."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import msgspec
import pytest

from providers.anthropic import AnthropicProvider
from providers.bedrock import BedrockProvider
from providers.errors import BadResponse, ProviderError, RateLimited, StreamBroken, Unavailable
from providers.gemini import GeminiProvider
from providers.interfaces import ChatProvider
from providers.messages import AgentConfig, ToolCall, ToolOutcome, ToolSpec, TurnRequest
from providers.ollama import OllamaProvider
from providers.openai_chat import OpenAIChatProvider
from providers.openai_responses import OpenAIResponsesProvider
from providers.tool_loop import Run, TurnRecord, run
from providers.transport import Transport
from providers.vertex import VertexProvider
from queue_backends import CallOutcome, ChunkType, Task, TokenUsage
from tests.npm import npm_program

pytestmark = pytest.mark.timeout(30)

_ANSWER = "It is 21 degrees in Lisbon, and the sun shines on the whole of the river: schöne Grüße."
_PROMPT = "What is the weather?"
_TOOLS = tuple(
    ToolSpec(
        name=name,
        input_schema={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    )
    for name in ("get_weather", "get_time")
)
_VENDORS = {
    "anthropic": (AnthropicProvider, "claude-sonnet-4-5", ""),
    "bedrock": (BedrockProvider, "eu.anthropic.claude-sonnet-4-6", ""),
    "gemini": (GeminiProvider, "gemini-2.5-flash", ""),
    "ollama": (OllamaProvider, "llama3.2", ""),
    "openai": (OpenAIChatProvider, "gpt-4o-mini", "/v1"),
    "openai_responses": (OpenAIResponsesProvider, "gpt-4o-mini", "/v1"),
    "vertex": (VertexProvider, "gemini-2.5-flash", ""),
}


@pytest.fixture(scope="module")
def aimock_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The mock server's address; it starts without a script."""
    program = npm_program("@copilotkit/aimock", "llmock")
    script = tmp_path_factory.mktemp("aimock") / "fixtures.json"
    script.write_text('{"fixtures": []}')
    command = [program, "--port", "0", "--fixtures", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            said = next((line for line in process.stdout if "listening on" in line), "")
            assert said, f"{program} ended with {process.wait(5)} before it listened"
            yield said.split()[-1]
        finally:
            process.kill()


class Aimock:
    """The mock server's control API."""

    def __init__(self, url: str, http: Transport) -> None:
        self.url = url
        self._http = http

    async def script(self, *fixtures: Mapping[str, Any]) -> None:
        """Answer with these, and forget everything from before."""
        await self._control("POST", "reset", {})
        await self._control("POST", "fixtures", {"fixtures": fixtures})

    async def chaos(self, **rates: float) -> None:
        """Break every answer from now on."""
        await self._control("POST", "chaos", rates)

    async def requests(self) -> list[dict[str, Any]]:
        """What the server was asked since `script`."""
        journal: list[dict[str, Any]] = await self._control("GET", "journal")
        return journal

    async def _control(self, method: str, what: str, body: object = None) -> Any:
        content = b"" if body is None else msgspec.json.encode(body)
        answer = await self._http.request(method, f"{self.url}/__aimock/{what}", content=content)
        assert answer.status == 200, answer.body
        return msgspec.json.decode(answer.body)


class Client:
    """A vendor's provider in the tool loop, with everything that came of it. It notes waits instead of waiting."""

    def __init__(self, vendor: str, url: str) -> None:
        make, self.model, path = _VENDORS[vendor]
        self.waits_s: list[float] = []
        self.restart_waits_s: list[float] = []
        self.provider: ChatProvider = make(Transport(sleep=self._wait))
        self.base_url = url + path
        self.calls: list[ToolCall] = []
        self.records: list[TurnRecord] = []
        self.texts: list[str] = []

    async def run(self, **config: Any) -> Run:
        """Run the prompt to its answer."""
        task = Task(id="task-1", prompt=_PROMPT)
        agent = AgentConfig(model=self.model, base_url=self.base_url, **config)
        return await run(
            self.provider, agent, task, _TOOLS, self._call_tool, self._chunk, self, sleep=self._wait_to_restart
        )

    async def failure(self, **config: Any) -> ProviderError:
        """Run the prompt to its failure."""
        with pytest.raises(ProviderError) as caught:
            await self.run(**config)
        return caught.value

    @property
    def outcomes(self) -> list[tuple[int, CallOutcome]]:
        """Attempt and end of each model call."""
        return [(record.attempt, record.outcome) for record in self.records]

    async def before_turn(self, request: TurnRequest, used: TokenUsage) -> None:
        """Each attempt's text is collected apart from the one before."""
        self.texts.append("")

    async def after_turn(self, record: TurnRecord) -> None:
        """Keep what is told of the call."""
        self.records.append(record)

    def finished_turn(self, turn: int, attempt: int) -> None:
        raise AssertionError("no run here is resumed")

    async def after_tool(self, call: ToolCall, outcome: ToolOutcome) -> None:
        assert outcome.call_id == call.id

    async def _call_tool(self, call: ToolCall) -> ToolOutcome:
        self.calls.append(call)
        return ToolOutcome(call_id=call.id, name=call.name, content=f"outcome of {call.name}")

    async def _chunk(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
        if kind is ChunkType.CONTENT:
            self.texts[-1] += content

    async def _wait(self, seconds: float) -> None:
        self.waits_s.append(seconds)

    async def _wait_to_restart(self, seconds: float) -> None:
        self.restart_waits_s.append(seconds)


@pytest.fixture
async def mock(aimock_url: str) -> AsyncIterator[Aimock]:
    """The mock server, to be given a script."""
    http = Transport()
    yield Aimock(aimock_url, http)
    await http.aclose()


@pytest.fixture(params=sorted(_VENDORS))
async def client(
    request: pytest.FixtureRequest, aimock_url: str, aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    """Each vendor's provider, pointed at the mock server."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "eu-west-1")
    client = Client(request.param, aimock_url)
    yield client
    await client.provider.aclose()


def _answer(**more: Any) -> dict[str, Any]:
    """The final answer, in small pieces."""
    return {"match": {"userMessage": _PROMPT}, "response": {"content": _ANSWER}, "chunkSize": 7} | more


def _wants(*calls: tuple[str, str]) -> dict[str, Any]:
    """The model asks for tools, each for a city, until it has their outcomes."""
    wanted = [{"name": name, "arguments": {"city": city}} for name, city in calls]
    return {"match": {"userMessage": _PROMPT, "hasToolResult": False}, "response": {"toolCalls": wanted}}


def _once(fault: Mapping[str, Any]) -> dict[str, Any]:
    """The final answer, broken the first time that it is asked for."""
    return _answer(match={"userMessage": _PROMPT, "sequenceIndex": 0}) | dict(fault)


# The pause lets each piece leave before the connection is destroyed: that throws away what has not left.
_CUT = {"truncateAfterChunks": 6, "latency": 10}


async def test_tool_call_then_answer(mock: Aimock, client: Client) -> None:
    """The scripted call reaches the tool, its outcome reaches the mock in a form that it knows, and the run answers."""
    await mock.script(_wants(("get_weather", "Lisbon")), _answer(match={"userMessage": _PROMPT, "hasToolResult": True}))
    done = await client.run()
    assert (done.output, done.turns) == (_ANSWER, 2)
    assert [(call.name, msgspec.json.decode(call.arguments)) for call in client.calls] == [
        ("get_weather", {"city": "Lisbon"})
    ]
    assert client.outcomes == [(0, CallOutcome.COMPLETED)] * 2
    assert [entry["response"]["status"] for entry in await mock.requests()] == [200, 200]


async def test_parallel_tool_calls(mock: Aimock, client: Client) -> None:
    """Calls of one answer stay apart and in order, and each outcome goes back under the id of its call."""
    wanted = [("get_weather", "Lisbon"), ("get_time", "Rome"), ("get_weather", "Oslo")]
    await mock.script(_wants(*wanted), _answer(match={"userMessage": _PROMPT, "hasToolResult": True}))
    done = await client.run()
    assert done.output == _ANSWER
    calls = done.messages[1].tool_calls
    assert [(call.name, msgspec.json.decode(call.arguments)["city"]) for call in calls] == wanted
    assert len({call.id for call in calls}) == len(wanted)
    _, second = await mock.requests()
    heard = [message for message in second["body"]["messages"] if message["role"] == "tool"]
    if client.provider.name == "ollama":  # the mock drops their ids
        assert [message["content"] for message in heard] == [f"outcome of {call.name}" for call in calls]
        return
    if client.provider.name in ("gemini", "vertex"):  # the mock gives their calls no ids: the order tells
        said = [msgspec.json.decode(message["content"])["output"] for message in heard]
        assert said == [f"outcome of {call.name}" for call in calls]
        return
    assert [(message["tool_call_id"], message["content"]) for message in heard] == [
        (call.id, f"outcome of {call.name}") for call in calls
    ]


async def test_streamed_text_is_the_final_text(mock: Aimock, client: Client) -> None:
    """What was streamed, letter by letter, joined is the answer."""
    await mock.script(_answer(chunkSize=1))
    done = await client.run()
    assert client.texts == [done.output] == [_ANSWER]


async def test_cut_stream_is_started_over(mock: Aimock, client: Client) -> None:
    """After a disconnect in the middle, the turn runs again under the next attempt and gives the whole answer."""
    await mock.script(_once(_CUT), _answer())
    done = await client.run()
    assert done.output == _ANSWER
    assert client.outcomes == [(0, CallOutcome.CUT), (1, CallOutcome.COMPLETED)]
    cut, whole = client.texts
    assert _ANSWER.startswith(cut)
    assert 0 < len(cut) < len(whole)
    assert whole == _ANSWER
    assert len(client.restart_waits_s) == 1


async def test_stream_that_is_always_cut(mock: Aimock, client: Client) -> None:
    """Where every try is cut, the run fails with `StreamBroken` after the allowed restarts, and asks no more."""
    await mock.script(_answer(**_CUT))
    error = await client.failure(max_turn_restarts=2)
    assert type(error) is StreamBroken
    assert client.outcomes == [(attempt, CallOutcome.CUT) for attempt in range(3)]
    assert len(await mock.requests()) == 3


async def test_connection_dropped_before_the_answer(mock: Aimock, client: Client) -> None:
    """A connection that closes without an answer is tried again as often as allowed, then the run fails cleanly."""
    await mock.script(_answer())
    await mock.chaos(disconnectRate=1)
    error = await client.failure(max_retries=2, max_turn_restarts=0)
    assert isinstance(error, Unavailable)
    assert client.texts == [""]
    assert len(client.waits_s) == 2
    assert len(await mock.requests()) == 3


async def test_malformed_answer(mock: Aimock, client: Client) -> None:
    """An answer that is no JSON and no stream is `BadResponse`, once the restarts are used up."""
    await mock.script(_answer())
    await mock.chaos(malformedRate=1)
    error = await client.failure(max_retries=0, max_turn_restarts=1)
    assert type(error) is BadResponse
    assert client.outcomes == [(0, CallOutcome.FAILED), (1, CallOutcome.FAILED)]


async def test_malformed_once(mock: Aimock, client: Client) -> None:
    """One malformed answer costs a restart, not the run."""
    await mock.script(_once({"chaos": {"malformedRate": 1}}), _answer())
    done = await client.run(max_retries=0)
    assert done.output == _ANSWER
    assert len(await mock.requests()) == 2


async def test_rate_limit_is_waited_for(mock: Aimock, client: Client) -> None:
    """After a 429, the next try comes no earlier than the server asked, and gets the answer; the loop sees one call."""
    limited = {"response": {"status": 429, "retryAfter": 7, "error": {"message": "slow down"}}}
    await mock.script(_once(limited), _answer())
    done = await client.run()
    assert done.output == _ANSWER
    (wait_s,) = client.waits_s
    assert 7 <= wait_s < 8
    assert client.outcomes == [(0, CallOutcome.COMPLETED)]
    assert [entry["response"]["status"] for entry in await mock.requests()] == [429, 200]


async def test_lasting_rate_limit(mock: Aimock, client: Client) -> None:
    """A limit that stays ends in `RateLimited`, which says how long the server wants us to wait."""
    await mock.script(_answer())
    await mock.chaos(rateLimitRate=1)
    error = await client.failure(max_retries=2)
    assert isinstance(error, RateLimited)
    assert (error.status, error.retry_after_s) == (429, 1.0)
    assert all(wait_s >= 1 for wait_s in client.waits_s)
    assert len(await mock.requests()) == 3
    assert client.restart_waits_s == []
