"""Ollama's provider: what it sends, what it makes of the answers, and how it copes with what a model cannot do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import structlog

from providers.errors import (
    AuthenticationFailed,
    BadResponse,
    ContextTooLong,
    InvalidRequest,
    StreamBroken,
    Unavailable,
)
from providers.interfaces import Completer, Embedder, HealthCheck, LiveConfig, ModelInfo, TokenCounter
from providers.messages import (
    AgentConfig,
    ImagePart,
    Message,
    Role,
    StopReason,
    TextPart,
    Thinking,
    ThinkingPart,
    ToolCall,
    ToolChoice,
    ToolOutcome,
    ToolSpec,
    TurnEnd,
    TurnRequest,
)
from providers.ollama import OllamaProvider
from providers.ollama_address import address
from providers.ollama_pull import PullProgress
from providers.replay_server import Received, ReplayServer, Reply, json_error
from providers.transport import Transport
from queue_backends import TokenUsage

pytestmark = pytest.mark.timeout(30)

_TOOL = ToolSpec(name="look", description="Looks.", input_schema={"type": "object", "properties": {"at": {}}})
_NO_TOOLS = "registry.ollama.ai/library/tiny:latest does not support tools"
_MISSING = json_error(404, b'{"error":"model \'tiny\' not found"}')


async def _no_wait(_: float) -> None:
    return


@pytest.fixture
async def progress() -> list[PullProgress]:
    """What was told of downloads."""
    return []


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch, progress: list[PullProgress]) -> AsyncIterator[OllamaProvider]:
    """A provider that does not sleep between tries."""
    for name in ("OLLAMA_HOST", "OLLAMA_API_KEY", "AGENT_EMBEDDING_MODEL", "AGENT_EMBED_MODEL"):
        monkeypatch.delenv(name, raising=False)
    provider = OllamaProvider(Transport(sleep=_no_wait), on_pull=progress.append)
    yield provider
    await provider.aclose()


def _line(message: dict[str, Any] | None = None, **more: Any) -> bytes:
    said = {"role": "assistant", "content": "", **(message or {})}
    return json.dumps({"model": "tiny", "message": said, "done": False, **more}).encode() + b"\n"


def _done(**more: Any) -> bytes:
    return _line(done=True, **{"done_reason": "stop", "prompt_eval_count": 5, "eval_count": 2, **more})


def _stream(*lines: bytes) -> Reply:
    return Reply(frames=lines, content_type="application/x-ndjson")


_OK = _stream(_line({"content": "ok"}), _done())


def _pulls(*lines: dict[str, Any]) -> Reply:
    return _stream(*(json.dumps(line).encode() + b"\n" for line in lines))


_PULLED = _pulls(
    {"status": "pulling manifest"},
    {"status": "pulling 6a0746a1ec1a", "digest": "sha256:6a07", "total": 100, "completed": 40},
    {"status": "pulling 6a0746a1ec1a", "digest": "sha256:6a07", "total": 100, "completed": 100},
    {"status": "verifying sha256 digest"},
    {"status": "success"},
)


def _turn(*messages: Message, tools: tuple[ToolSpec, ...] = (), task_id: str = "", **config: Any) -> TurnRequest:
    config = {"model": "tiny", "max_retries": 0, **config}
    asked = messages or (Message.user("Hi"),)
    return TurnRequest(config=AgentConfig(**config), messages=asked, tools=tools, task_id=task_id)


async def _talk(provider: OllamaProvider, request: TurnRequest, *replies: Reply) -> tuple[TurnEnd, list[Received]]:
    async with ReplayServer(replies or (_OK,)) as server:
        config = msgspec.structs.replace(request.config, base_url=server.url)
        events = [e async for e in provider.stream_turn(msgspec.structs.replace(request, config=config))]
    end = events[-1]
    assert isinstance(end, TurnEnd)
    return end, server.requests


async def _body(provider: OllamaProvider, request: TurnRequest) -> dict[str, Any]:
    _, (sent,) = await _talk(provider, request)
    body: dict[str, Any] = json.loads(sent.body)
    return body


async def test_plain_request(provider: OllamaProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path, no key, and the limits as options; the server is told to refuse what does not fit, not to cut it."""
    async with ReplayServer([_OK]) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url.removeprefix("http://"))
        request = _turn(system_prompt="Be kind.", max_tokens=77, temperature=0.5, top_p=0.9, stop=("END",))
        _ = [event async for event in provider.stream_turn(request)]
    sent = server.requests[0]
    assert (sent.method, sent.target) == ("POST", "/api/chat")
    assert "authorization" not in sent.headers
    assert json.loads(sent.body) == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        "truncate": False,
        "shift": False,
        "options": {"num_predict": 77, "temperature": 0.5, "top_p": 0.9, "stop": ["END"]},
        "stream": True,
    }


async def test_conversation(provider: OllamaProvider) -> None:
    """Calls, outcomes, reasoning and pictures in Ollama's form; a tool's pictures follow as the user's."""
    assistant = Message(
        role=Role.ASSISTANT,
        parts=(
            ThinkingPart(text="hmm", provider="ollama"),
            ThinkingPart(text="foreign", signature="s", provider="anthropic"),
            TextPart(text="Let me look."),
            ToolCall(id="t1", name="look", arguments='{"at":1}'),
            ToolCall(id="t2", name="look", arguments="not json"),
        ),
    )
    outcomes = Message(
        role=Role.USER,
        parts=(
            ToolOutcome(call_id="t1", name="look", content="nothing", images=(ImagePart(data="AAAA"),)),
            ToolOutcome(call_id="t2", name="look", content="no such place", is_error=True),
        ),
    )
    picture = ImagePart(url="data:image/png;base64,BBBB")
    question = Message(role=Role.USER, parts=(TextPart(text="What?"), picture))
    body = await _body(provider, _turn(question, assistant, outcomes, tools=(_TOOL,)))
    assert body["messages"] == [
        {"role": "user", "content": "What?", "images": ["BBBB"]},
        {
            "role": "assistant",
            "content": "Let me look.",
            "thinking": "hmm",
            "tool_calls": [
                {"id": "t1", "function": {"index": 0, "name": "look", "arguments": {"at": 1}}},
                {"id": "t2", "function": {"index": 1, "name": "look", "arguments": {"invalid_arguments": "not json"}}},
            ],
        },
        {"role": "tool", "content": "nothing", "tool_name": "look", "tool_call_id": "t1"},
        {"role": "tool", "content": "no such place", "tool_name": "look", "tool_call_id": "t2"},
        {"role": "user", "content": "", "images": ["AAAA"]},
    ]
    parameters = {"type": "object", "properties": {"at": {}}}
    function = {"name": "look", "description": "Looks.", "parameters": parameters}
    assert body["tools"] == [{"type": "function", "function": function}]


async def test_picture_by_address(provider: OllamaProvider) -> None:
    """The API takes no addresses: the error says what to send instead."""
    message = Message(role=Role.USER, parts=(ImagePart(url="https://example.com/a.png"),))
    with pytest.raises(InvalidRequest, match="base64"):
        await _talk(provider, _turn(message))


@pytest.mark.parametrize(
    ("thinking", "sent"),
    [
        (None, None),
        (Thinking(), None),
        (Thinking(effort="high"), "high"),
        (Thinking(effort="none"), False),
        (Thinking(budget_tokens=2000), True),
        (Thinking(budget_tokens=0), False),
    ],
)
async def test_thinking(provider: OllamaProvider, thinking: Thinking | None, sent: Any) -> None:
    """Effort goes as a word, a budget as yes or no and on top of the answer's tokens; without a wish, nothing."""
    body = await _body(provider, _turn(thinking=thinking, max_tokens=100))
    assert body.get("think") == sent
    assert body["options"]["num_predict"] == 100 + (2000 if sent is True else 0)


async def test_structured_output(provider: OllamaProvider) -> None:
    """The schema is the format; with tools, which a format would rule out, the model is told of it instead."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    plain = await _body(provider, _turn(output_schema=schema))
    assert plain["format"] == schema
    with_tools = await _body(provider, _turn(output_schema=schema, tools=(_TOOL,), system_prompt="Be kind."))
    assert "format" not in with_tools
    assert with_tools["messages"][0]["content"].startswith("Be kind.\n\n")
    assert json.dumps(schema, separators=(",", ":")) in with_tools["messages"][0]["content"]
    unprompted = await _body(provider, _turn(output_schema=schema, tools=(_TOOL,)))
    assert [message["role"] for message in unprompted["messages"]] == ["system", "user"]


async def test_tool_choice_none(provider: OllamaProvider) -> None:
    """The API has no such field, so the tools stay at home."""
    assert "tools" not in await _body(provider, _turn(tools=(_TOOL,), tool_choice=ToolChoice.NONE))


async def test_options(provider: OllamaProvider) -> None:
    """An agent's options count more than live settings; seconds of `keep_alive` are a number."""
    await provider.config_updated({"num_ctx": "8192", "keep_alive": "10m", "model": "other"})
    live = await _body(provider, _turn(model=""))
    assert (live["model"], live["options"]["num_ctx"], live["keep_alive"]) == ("other", 8192, "10m")
    options = {"num_ctx": 4096, "keep_alive": "-1", "truncate": True, "model_options": {"seed": 7, "top_k": 20}}
    own = await _body(provider, _turn(options=options | {"extra_body": {"raw": False}}))
    assert own["options"] == {"num_predict": 8000, "num_ctx": 4096, "seed": 7, "top_k": 20}
    assert (own["keep_alive"], own["truncate"], own["shift"], own["raw"]) == (-1, True, True, False)
    with pytest.raises(InvalidRequest, match="num_ctx: 'many'"):
        await _body(provider, _turn(options={"num_ctx": "many"}))


async def test_calls_get_ids(provider: OllamaProvider) -> None:
    """Calls without ids get some, the same each time, and never one that the conversation has already."""
    call = {"function": {"name": "look", "arguments": {"at": 1}}}
    reply = _stream(_line({"tool_calls": [call]}), _line({"tool_calls": [call]}), _done())
    ids = []
    for _ in range(2):
        end, _requests = await _talk(provider, _turn(tools=(_TOOL,), task_id="task-1"), reply)
        ids.append([made.id for made in end.message.tool_calls])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2
    other, _requests = await _talk(provider, _turn(tools=(_TOOL,), task_id="task-2"), reply)
    assert not {made.id for made in other.message.tool_calls} & set(ids[0])
    first = Message(role=Role.ASSISTANT, parts=(ToolCall(id=ids[0][0], name="look"),))
    again, _requests = await _talk(provider, _turn(Message.user("Hi"), first, task_id="task-1"), reply)
    assert len({made.id for made in again.message.tool_calls} | {ids[0][0]}) == 3


async def test_servers_own_ids(provider: OllamaProvider) -> None:
    """Ids that the server gives are kept, unless it gives one twice; arguments as a text are taken, too."""
    calls = [
        {"id": "call_a", "function": {"name": "look", "arguments": '{"at": 2}'}},
        {"id": "call_a", "function": {"name": "look"}},
    ]
    end, _ = await _talk(provider, _turn(), _stream(_line({"tool_calls": calls}), _done()))
    assert [(call.id, call.arguments) for call in end.message.tool_calls] == [
        ("call_a", '{"at": 2}'),
        ("call_a_2", "{}"),
    ]
    assert end.stop_reason is StopReason.TOOL_USE


async def test_answer_in_one_piece(provider: OllamaProvider) -> None:
    """A server that does not stream is understood, and unknown counts stay unknown."""
    whole = {"model": "tiny", "message": {"role": "assistant", "content": "ok"}, "done": True, "done_reason": "stop"}
    end, _ = await _talk(provider, _turn(), json_error(200, json.dumps(whole).encode()))
    assert (end.message.text, end.stop_reason, end.usage) == ("ok", StopReason.END_TURN, TokenUsage())


async def test_only_loaded(provider: OllamaProvider) -> None:
    """A server that loaded the model and said nothing has not answered: that is worth another try."""
    with pytest.raises(BadResponse, match="only loaded the model") as caught:
        await _talk(provider, _turn(), _stream(_done(done_reason="load")))
    assert caught.value.retryable


async def test_error_line_in_the_middle(provider: OllamaProvider) -> None:
    """After the answer began, an error that may pass is a broken stream."""
    error = b'{"error":"an error was encountered while running the model: CUDA error"}\n'
    with pytest.raises(StreamBroken, match="CUDA error"):
        await _talk(provider, _turn(), _stream(_line({"content": "a"}), error))


async def test_error_line_at_the_start(provider: OllamaProvider) -> None:
    """Before it began, such an error is tried again."""
    error = _stream(b'{"error":"model runner has unexpectedly stopped"}\n')
    end, requests = await _talk(provider, _turn(max_retries=1), error, _OK)
    assert (end.message.text, len(requests)) == ("ok", 2)


async def test_context_too_long(provider: OllamaProvider) -> None:
    """Where the conversation does not fit, the error says which setting makes room."""
    refusal = json_error(400, b'{"error":"prompt too long; exceeded max context length by 812 tokens"}')
    with pytest.raises(ContextTooLong, match=r"812 tokens.*options\.num_ctx"):
        await _talk(provider, _turn(), refusal)


def _refusal(message: str) -> Reply:
    return json_error(400, json.dumps({"error": message}).encode())


async def test_model_without_tools(provider: OllamaProvider) -> None:
    """The turn is asked again without tools."""
    end, requests = await _talk(provider, _turn(tools=(_TOOL,)), _refusal(_NO_TOOLS), _OK)
    assert end.message.text == "ok"
    assert ["tools" in json.loads(request.body) for request in requests] == [True, False]


async def test_model_without_thinking(provider: OllamaProvider) -> None:
    """Efforts become yes, then nothing at all, as far as the model refuses them."""
    word = _refusal('think value "high" is not supported for this model')
    nothing = _refusal('"tiny" does not support thinking')
    end, requests = await _talk(provider, _turn(thinking=Thinking(effort="high")), word, nothing, _OK)
    assert end.message.text == "ok"
    assert [json.loads(request.body).get("think") for request in requests] == ["high", True, None]


async def test_lasting_refusal(provider: OllamaProvider) -> None:
    """A model that refuses tools that were not sent is not asked for ever."""
    with pytest.raises(InvalidRequest, match="does not support tools"):
        await _talk(provider, _turn(tools=(_TOOL,)), _refusal(_NO_TOOLS))


async def test_missing_model(provider: OllamaProvider) -> None:
    """A model that is not there is a lasting error that says how to get it."""
    with pytest.raises(InvalidRequest, match="model 'tiny' not found: run `ollama pull tiny`") as caught:
        await _talk(provider, _turn(), _MISSING)
    assert caught.value.status == 404
    assert not caught.value.retryable


async def test_pull_missing_model(provider: OllamaProvider, progress: list[PullProgress]) -> None:
    """With `pull`, the server is told to download it, progress is told, and the turn goes on."""
    end, requests = await _talk(provider, _turn(options={"pull": True}), _MISSING, _PULLED, _OK)
    assert end.message.text == "ok"
    assert [request.target for request in requests] == ["/api/chat", "/api/pull", "/api/chat"]
    assert json.loads(requests[1].body) == {"model": "tiny", "stream": True}
    assert [(step.status, step.completed) for step in progress] == [
        ("pulling manifest", None),
        ("pulling 6a0746a1ec1a", 40),
        ("pulling 6a0746a1ec1a", 100),
        ("verifying sha256 digest", None),
        ("success", None),
    ]


async def test_pull_as_live_setting(provider: OllamaProvider) -> None:
    """The live setting asks for it too; still missing after the download, the model is not downloaded again."""
    await provider.config_updated({"pull": "true"})
    async with ReplayServer([_MISSING, _PULLED, _MISSING, _PULLED, _OK]) as server:
        with pytest.raises(InvalidRequest, match="not found"):
            await anext(provider.stream_turn(_turn(base_url=server.url)))
        assert [request.target for request in server.requests] == ["/api/chat", "/api/pull", "/api/chat"]


@pytest.mark.parametrize(
    ("lines", "kind", "said"),
    [
        ([{"error": "pull model manifest: file does not exist"}], InvalidRequest, "cannot download 'tiny'.*not exist"),
        ([{"status": "pulling manifest"}, {"error": "dial tcp: no route"}], Unavailable, "no route"),
        ([{"status": "pulling manifest"}], StreamBroken, "in the middle, at 'pulling manifest'"),
    ],
)
async def test_failed_pull(
    provider: OllamaProvider, lines: list[dict[str, Any]], kind: type[Exception], said: str
) -> None:
    """A download that fails says so: no such model is final, a network is not."""
    with pytest.raises(kind, match=said):
        await _talk(provider, _turn(options={"pull": True}), _MISSING, _pulls(*lines))


async def test_progress_in_the_log() -> None:
    """Without anybody to tell, the log has each step once, and the tenths of a long download."""
    provider = OllamaProvider()
    part: dict[str, Any] = {"status": "pulling 6a07", "digest": "sha256:6a07", "total": 1000}
    steps: list[dict[str, Any]] = [
        {"status": "pulling manifest"},
        *(part | {"completed": done} for done in range(0, 301, 10)),
    ]
    async with ReplayServer([_pulls(*steps, {"status": "success"})]) as server:
        with structlog.testing.capture_logs() as lines:
            await provider.pull(AgentConfig(model="tiny", base_url=server.url), "tiny")
    await provider.aclose()
    assert {line["model"] for line in lines} == {"tiny"}
    assert [(line["status"], line.get("percent")) for line in lines] == [
        ("pulling manifest", None),
        *(("pulling 6a07", percent) for percent in (0, 10, 20, 30)),
        ("success", None),
    ]


async def test_pull_for_embeddings(provider: OllamaProvider) -> None:
    """The model for embeddings is downloaded, too, under its own name."""
    async with ReplayServer([_MISSING, _PULLED, json_error(200, b'{"embeddings":[[1.0]]}')]) as server:
        options = {"pull": True, "embedding_model": "embedder"}
        config = AgentConfig(model="tiny", base_url=server.url, options=options)
        assert await provider.embed(config, ["a"]) == [[1.0]]
    assert [json.loads(request.body)["model"] for request in server.requests] == ["embedder"] * 3


async def test_pull_once_for_all(provider: OllamaProvider) -> None:
    """Calls that miss the same model at the same time cause one download."""
    show = json_error(200, b"{}")
    async with ReplayServer([_PULLED, show]) as server:
        config = AgentConfig(model="tiny", base_url=server.url)
        await asyncio.gather(*(provider.pull(config, "tiny") for _ in range(4)))
    assert [request.target for request in server.requests] == ["/api/pull"] + ["/api/show"] * 3


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", "http://127.0.0.1:11434"),
        (":56789", "http://127.0.0.1:56789"),
        ("box", "http://box:11434"),
        ("box:80/", "http://box:80"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("[::]:8080", "http://[::1]:8080"),
        ("[fe80::1]", "http://[fe80::1]:11434"),
        ("http://box", "http://box:80"),
        ("https://box", "https://box:443"),
        ("https://box:8443/ollama/", "https://box:8443/ollama"),
        ("http://localhost:11434/v1", "http://localhost:11434"),
        ("http://localhost:11434/api", "http://localhost:11434"),
        ("ollama.com", "https://ollama.com:443"),
        ("https://me:pw@box", "https://me:pw@box:443"),
    ],
)
def test_addresses(text: str, meant: str) -> None:
    """All forms of `OLLAMA_HOST` mean what they mean to Ollama's own clients."""
    assert address(text) == meant


@pytest.mark.parametrize("text", ["ftp://box", "http://box:many", "unix:///run/ollama.sock"])
def test_impossible_addresses(text: str) -> None:
    """What is no address is refused with the forms that are."""
    with pytest.raises(InvalidRequest, match="host:port"):
        address(text)


async def test_key(provider: OllamaProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ollama's own service wants a key; elsewhere one is sent if there is one."""
    with pytest.raises(AuthenticationFailed, match="OLLAMA_API_KEY is not set"):
        await anext(provider.stream_turn(_turn(base_url="https://ollama.com")))
    monkeypatch.setenv("OLLAMA_API_KEY", "a-key")
    _, (sent,) = await _talk(provider, _turn())
    assert sent.headers["authorization"] == "Bearer a-key"


async def test_complete(provider: OllamaProvider) -> None:
    """A single prompt, without a stream and without tools."""
    answer = b'{"message":{"role":"assistant","content":"Yes."},"done":true}'
    async with ReplayServer([json_error(200, answer)]) as server:
        config = AgentConfig(model="tiny", base_url=server.url, temperature=0.1)
        assert isinstance(provider, Completer)
        assert await provider.complete(config, "Be brief.", "Is it?", 20) == "Yes."
    assert json.loads(server.requests[0].body) == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it?"}],
        "truncate": False,
        "shift": False,
        "options": {"num_predict": 20, "temperature": 0.1},
        "stream": False,
    }


async def test_embed(provider: OllamaProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """All texts in one request, by the model that options, settings or environment name."""
    answer = json_error(200, b'{"embeddings":[[0.5,1],[2,3]]}')
    assert isinstance(provider, Embedder)
    models = []
    async with ReplayServer([answer]) as server:
        config = AgentConfig(model="tiny", base_url=server.url)
        assert await provider.embed(config, ["a", "b"]) == [[0.5, 1], [2, 3]]
        monkeypatch.setenv("AGENT_EMBEDDING_MODEL", "from-environment")
        await provider.embed(config, ["a", "b"])
        await provider.config_updated({"embedding_model": "from-settings"})
        await provider.embed(config, ["a", "b"])
        options = {"embedding_model": "own", "dimensions": 2}
        await provider.embed(msgspec.structs.replace(config, options=options), ["a", "b"])
        models = [json.loads(request.body)["model"] for request in server.requests]
    assert models == ["nomic-embed-text", "from-environment", "from-settings", "own"]
    sent = {"model": "own", "input": ["a", "b"], "truncate": False, "dimensions": 2}
    assert json.loads(server.requests[-1].body) == sent


async def test_model_info(provider: OllamaProvider) -> None:
    """Window, tools, pictures and thinking come from the server; the window that requests ask for counts."""
    shown = {
        "model_info": {"general.architecture": "llama", "llama.context_length": 131072},
        "capabilities": ["completion", "tools", "vision"],
        "parameters": 'stop    "<|eot|>"\nnum_ctx    16384',
    }
    async with ReplayServer([json_error(200, json.dumps(shown).encode())]) as server:
        config = AgentConfig(model="tiny", base_url=server.url)
        info = await provider.model_info(config)
        assert info == ModelInfo(context_window=16384, tools=True, images=True, thinking=False)
        asked = await provider.model_info(msgspec.structs.replace(config, options={"num_ctx": 4096}))
        assert asked.context_window == 4096
        beyond = await provider.model_info(msgspec.structs.replace(config, options={"num_ctx": 999_999}))
        assert beyond.context_window == 131072


async def test_health(provider: OllamaProvider) -> None:
    """A server that lists its models is healthy, and the details tell of an agent's model that is not among them."""
    assert isinstance(provider, HealthCheck)
    listed = json_error(200, b'{"models":[{"name":"tiny:latest","model":"tiny:latest"}]}')
    async with ReplayServer([listed]) as server:
        there = await provider.health_check(AgentConfig(model="tiny", base_url=server.url))
        missing = await provider.health_check(AgentConfig(model="huge:70b", base_url=server.url))
    assert server.requests[0].target == "/api/tags"
    assert there.healthy
    assert "missing" not in there.details
    assert missing.healthy
    assert "ollama pull huge:70b" in missing.details["missing"]


async def test_capabilities(provider: OllamaProvider) -> None:
    """Counting is an estimate that needs no server, and settings are described."""
    assert isinstance(provider, TokenCounter)
    config = AgentConfig(model="tiny", base_url="http://127.0.0.1:1", system_prompt="word " * 100)
    count = await provider.count_tokens(config, [Message.user("word " * 300)])
    assert 300 < count < 800
    assert isinstance(provider, LiveConfig)
    assert {param.key for param in provider.describe() if param.secret} == {"api_key"}
