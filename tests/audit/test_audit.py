"""The audit log: which acts a worker writes down, in kubeswarm's form, and what becomes of secrets and long texts."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from providers import AgentConfig
from queue_backends import Task, open_backend
from tests.servers import Server
from worker.assembly import open_worker
from worker.audit.model import AuditLog, parse_audit_log
from worker.audit.opening import audited
from worker.audit.record import Action, AuditRecord, Env, Status, Tokens
from worker.audit.redaction import REDACTED, TRUNCATED, Redaction
from worker.audit.sinks import NotTaken, RedisSink, StdoutSink, WebhookSink
from worker.audit.trail import MOST_WAITING, AuditTrail
from worker.errors import BadSetting
from worker.settings import Settings, load_settings
from worker.task_run import Stop
from worker.telemetry import Telemetry

WITHIN_S = 30.0
SECRET = "sk-ant-api03-" + "x" * 40
TOOLS = """
from worker import tool


@tool
def add(a: int, password: str = "") -> str:
    '''Adds.'''
    return str(a + 1)
"""


class Kept:
    """A sink that keeps what it is given, or refuses it."""

    gathers_s = 0.0

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []
        self.refuses = False
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.is_closed = False

    async def write(self, records: Sequence[AuditRecord]) -> None:
        """Keep them."""
        await self.may_go_on.wait()
        if self.refuses:
            raise NotTaken("no")
        self.records += records

    async def aclose(self) -> None:
        """Note it."""
        self.is_closed = True


def scripted(*turns: dict[str, Any]) -> AgentConfig:
    """An agent that says and does this."""
    script = {"scenarios": [{"turns": list(turns)}]}
    return AgentConfig(model="scripted", provider="scripted", options={"script": script})


@asynccontextmanager
async def working(monkeypatch: pytest.MonkeyPatch, audit: AuditLog, **settings: Any) -> AsyncIterator[Any]:
    """A worker with an audit log, and what that holds."""
    kept = Kept()
    monkeypatch.setattr("worker.audit.opening._sink", lambda *_: kept)
    wanted = Settings(audit_log=audit, queue_url="memory://", **settings)
    async with asyncio.timeout(WITHIN_S), await open_backend("memory://") as backend, open_worker(wanted, backend):
        yield backend.queue, kept
    assert kept.is_closed


async def test_a_task_with_a_tool_call_is_written_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """What came, what the tool was told and answered, what it all used; each act names the one that began it. What a
    pattern names is hidden, wherever in the arguments it stands, and what looks like a key is masked anyhow."""
    (tmp_path / "tools.py").write_text(TOOLS)
    call = {"name": "add", "arguments": {"a": 1, "password": "hunter2"}}
    usage = {"input_tokens": 7, "output_tokens": 2}
    agent = scripted({"tool_calls": [call], "usage": usage}, {"text": "two", "usage": usage})
    audit = AuditLog(mode="verbose", redact=("detail.input.pass*",))
    settings = {"agent": agent, "agent_name": "writer", "python_tools": (str(tmp_path / "tools.py"),)}
    async with working(monkeypatch, audit, **settings) as (queue, kept):
        task_id = await queue.submit(Task(prompt=f"add with {SECRET}", tenant="acme", meta={"run_name": "r1"}))
        assert (await queue.wait(task_id, WITHIN_S)).output == "two"
    received, tool, completed = kept.records
    assert [record.action for record in kept.records] == ["task.received", "tool.called", "task.completed"]
    assert {(each.task_id, each.run_id, each.agent, each.namespace) for each in kept.records} == {
        (task_id, "r1", "writer", "acme")
    }
    assert (received.model, received.provider, received.trigger) == ("scripted", "scripted", "user_request")
    assert tool.parent_event_id == completed.parent_event_id == received.event_id
    assert received.detail["input"].startswith("add with ")
    assert SECRET not in str(kept.records)
    assert msgspec.json.decode(tool.detail["input"]) == {"a": 1, "password": REDACTED}
    assert (tool.detail["output"], tool.detail["tool"], tool.detail["toolType"]) == ("2", "add", "python")
    assert completed.tokens == Tokens(14, 4)
    assert {each.status for each in kept.records} == {"success"}


async def test_prompts_are_written_down_in_verbose_mode_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acts tell what was done, not what was said; and acts that are excluded are not there at all."""
    audit = AuditLog(mode="actions", exclude_actions=("task.completed",))
    async with working(monkeypatch, audit, agent=scripted({"text": "ok"})) as (queue, kept):
        await queue.wait(await queue.submit(Task(prompt="a question")), WITHIN_S)
    [received] = kept.records
    assert "a question" not in str(received)


async def test_a_failed_task_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt: the second one as a retry; the error with its kind, and whether it may be repeated."""
    agent = scripted({"fault": {"kind": "overloaded"}})
    audit = AuditLog(mode="actions")
    async with working(monkeypatch, audit, agent=agent, max_retries=1, retry_base_s=0.0) as (queue, kept):
        await queue.wait(await queue.submit(Task(prompt="go")), WITHIN_S)
    assert [(each.action, each.trigger) for each in kept.records] == [
        ("task.received", "user_request"),
        ("task.failed", ""),
        ("task.received", "retry"),
        ("task.failed", ""),
    ]
    error = kept.records[-1].error
    assert (error.code, error.retryable, kept.records[-1].status) == ("Overloaded", True, "error")


async def test_a_run_that_goes_on_elsewhere_has_not_failed() -> None:
    """One that is late has, and says so. Spans tell the reason in the words of those who stop runs."""
    sink = Kept()
    trail = AuditTrail(sink)
    async with trail.kept(), _opened(trail) as telemetry:
        for reason in (Stop.RELEASED, Stop.LEASE_LOST, Stop.TIMED_OUT):
            with telemetry.task(Task(id=reason, prompt="x")) as span:
                span.fail(str(reason), kind="stopped")
    ends = [each for each in sink.records if each.action == "task.failed"]
    assert [(each.task_id, each.status) for each in ends] == [(Stop.TIMED_OUT, "timeout")]


@asynccontextmanager
async def _opened(trail: AuditTrail) -> AsyncIterator[Telemetry]:
    from worker.audit.acts import AuditedTelemetry, Writer

    yield AuditedTelemetry(
        Telemetry(),
        Writer(
            trail=trail,
            redaction=Redaction((), 0),
            namespace="prod",
            agent="writer",
            env=Env(),
            config_of=lambda _: AgentConfig(model="m"),
        ),
    )


def record(number: int = 0) -> AuditRecord:
    """An act."""
    return AuditRecord(
        action=Action.TOOL_CALLED,
        status=Status.SUCCESS,
        namespace="prod",
        agent="writer",
        env=Env(),
        task_id=str(number),
    )


def test_the_form_is_kubeswarms() -> None:
    """Its keys in its order, what is not known left out, the environment always there."""
    whole = msgspec.structs.replace(record(), tokens=Tokens(1, 2), detail={"tool": "x"})
    out = io.StringIO()
    asyncio.run(StdoutSink(lambda: out).write([whole]))
    line = out.getvalue()
    keys = ["schemaVersion", "eventId", "timestamp", "action", "status", "namespace", "agent", "taskId", "tokens"]
    assert list(msgspec.json.decode(line)) == [*keys, "detail", "env"]
    assert line.endswith('"tokens":{"input":1,"output":2},"detail":{"tool":"x"},"env":{}}\n')
    assert re.search(r'"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"', line)


@pytest.mark.parametrize(
    ("patterns", "detail", "expected"),
    [
        (("detail.output",), {"output": "x", "tool": "t"}, {"output": REDACTED, "tool": "t"}),
        (("detail.*.key",), {"a": {"key": 1, "b": 2}}, {"a": {"key": REDACTED, "b": 2}}),
        (("detail.*",), {"a": {"key": 1}}, {"a": REDACTED}),
        (("detail.input.key",), {"input": "no JSON {"}, {"input": "no JSON {"}),
        ((), {"b": 1, "a": 2}, {"a": 2, "b": 1}),
    ],
)
def test_what_patterns_name_is_hidden(patterns: tuple[str, ...], detail: Any, expected: Any) -> None:
    """A star stands for one name, never for a path."""
    found = Redaction(patterns, 0).of(detail)
    assert found == expected
    assert list(found) == sorted(found)


def test_long_texts_are_cut() -> None:
    """In bytes, between two characters, and the record says so."""
    found = Redaction((), 20).of({"input": "ü" * 50, "output": "short", "tool": "x" * 50})
    assert found["input"] == "ü" * 4 + TRUNCATED
    assert found["truncated"] is True
    assert (found["output"], found["tool"]) == ("short", "x" * 50)


async def test_a_sink_that_is_slow_or_refuses_holds_up_nobody() -> None:
    """The oldest go when too many wait; what is refused is gone; both are counted."""
    sink = Kept()
    sink.may_go_on.clear()
    trail = AuditTrail(sink)
    async with asyncio.timeout(WITHIN_S), trail.kept():
        for number in range(MOST_WAITING + 10):
            trail.write_down(record(number))
        assert trail.dropped == 10
        sink.may_go_on.set()
    assert [each.task_id for each in sink.records] == [str(number) for number in range(10, MOST_WAITING + 10)]
    sink = Kept()
    sink.refuses = True
    trail = AuditTrail(sink)
    async with trail.kept():
        trail.write_down(record())
    assert trail.dropped == 1


async def test_redis_holds_a_stream_for_each_namespace(durable_server: Server, stream: str) -> None:
    """Under kubeswarm's key, a field `data` with the record."""
    import redis.asyncio

    url = durable_server.url(stream).partition("?")[0]
    sink = RedisSink(url)
    key = f"kubeswarm:audit:{stream}"
    try:
        await sink.write([msgspec.structs.replace(record(number), namespace=stream) for number in (1, 2)])
        async with redis.asyncio.Redis.from_url(url) as client:
            entries: Any = await client.xrange(key)
            await client.delete(key)
    finally:
        await sink.aclose()
    assert [msgspec.json.decode(fields[b"data"])["taskId"] for _, fields in entries] == ["1", "2"]


async def test_redis_that_is_away_is_left_alone_for_a_moment() -> None:
    """After five failures nothing is tried for half a minute; then once more."""
    now = 0.0
    sink = RedisSink("redis://127.0.0.1:1", clock=lambda: now)
    for _ in range(5):
        with pytest.raises(NotTaken, match="connecting"):
            await sink.write([record()])
    with pytest.raises(NotTaken, match="left alone"):
        await sink.write([record()])
    now = 31.0
    with pytest.raises(NotTaken, match="connecting"):
        await sink.write([record()])
    await sink.aclose()


class Answers:
    """An HTTP client that answers as told, and keeps what it was asked."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.bodies: list[Any] = []

    async def request(self, method: str, url: str, *, content: bytes, **_: Any) -> Any:
        """The next answer."""
        from providers.calls import Response

        self.bodies.append(msgspec.json.decode(content))
        return Response(status=self.statuses.pop(0), headers={}, body=b"")

    async def aclose(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    ("statuses", "posts", "is_taken"),
    [((200,), 1, True), ((503, 429, 200), 3, True), ((500, 500, 500), 3, False), ((404,), 1, False)],
)
async def test_a_webhook_is_tried_three_times(statuses: tuple[int, ...], posts: int, is_taken: bool) -> None:
    """A refusal is final."""
    http: Any = Answers(*statuses)
    sink = WebhookSink("https://siem.example.com/in", http, waits_s=(0.0, 0.0, 0.0))
    if is_taken:
        await sink.write([record(1), record(2)])
    else:
        with pytest.raises(NotTaken, match=str(statuses[-1])):
            await sink.write([record(1), record(2)])
    assert len(http.bodies) == posts
    assert [each["taskId"] for each in http.bodies[0]] == ["1", "2"]


def test_the_variable_is_read_in_arks_words() -> None:
    """What is not known is left out; what cannot be is one line; the URL is shown nowhere."""
    found = parse_audit_log(
        '{"mode":"actions","sink":"redis","maxDetailBytes":10,"redact":["detail.input"],'
        '"excludeActions":["tool.called"],"redisURL":"redis://:pw@h","new":1}'
    )
    assert found is not None
    assert (found.mode, found.max_detail_bytes, found.redis_url) == ("actions", 10, "redis://:pw@h")
    assert "pw" not in repr(found)
    assert not AuditLog().is_on
    for text, reason in (
        ("{", "input data was truncated"),
        ("{x}", "JSON is malformed"),
        ('{"mode":"loud"}', "invalid enum value 'loud'"),
    ):
        with pytest.raises(BadSetting, match=f"invalid AGENT_AUDIT_LOG JSON: {reason}"):
            parse_audit_log(text)
    settings = load_settings(environ={"AGENT_AUDIT_LOG": '{"mode":"actions","redisURL":"redis://:pw@h"}'})
    assert settings.audit_log is not None
    assert "pw" not in repr(settings)


@pytest.mark.parametrize(
    ("audit", "reason"),
    [(AuditLog(mode="actions", sink="redis"), "redisURL"), (AuditLog(mode="actions", sink="webhook"), "webhookURLEnv")],
)
async def test_a_sink_without_an_address_is_an_error_at_the_start(audit: AuditLog, reason: str) -> None:
    """And not an audit log that nobody will find."""
    settings = Settings(audit_log=audit, queue_url="memory://")
    with pytest.raises(BadSetting, match=reason):
        async with audited(Telemetry(), settings, lambda _: AgentConfig(model=""), environ={}):
            raise AssertionError("it has begun")


class Failing(Kept):
    """A sink with a fault of its own, once."""

    is_whole = False

    async def write(self, records: Sequence[AuditRecord]) -> None:
        """Fails the first time."""
        if not self.is_whole:
            self.is_whole = True
            raise RuntimeError("a fault")
        await super().write(records)


async def test_a_fault_of_the_sink_is_not_the_end_of_the_log() -> None:
    """What it has met is lost, and counted; what comes after is written."""
    sink = Failing()
    trail = AuditTrail(sink)
    async with asyncio.timeout(WITHIN_S), trail.kept():
        trail.write_down(record(1))
        while not trail.dropped:
            await asyncio.sleep(0)
        trail.write_down(record(2))
    assert ([each.task_id for each in sink.records], trail.dropped) == (["2"], 1)


def test_redaction_looks_into_lists() -> None:
    """An item's number is its name."""
    detail = {"input": '{"users":[{"name":"a","password":"p"}]}', "output": '[{"password":"p"}]'}
    found = Redaction(("detail.input.users.*.password", "detail.output.*.password"), 0).of(detail)
    assert found["input"] == '{"users":[{"name":"a","password":"[REDACTED]"}]}'
    assert found["output"] == '[{"password":"[REDACTED]"}]'


def test_what_a_model_may_write_is_never_an_error() -> None:
    """Too deep to be looked through: hidden. Halves of characters: no characters."""
    redaction = Redaction(("detail.input.a.password",), 0)
    assert redaction.of({"input": '{"a":' * 900 + "1" + "}" * 900}) == {"input": REDACTED}
    assert redaction.of({"input": '{"a":"\ud800"}', "output": "\ud800"}) == {"input": '{"a":"?"}', "output": "?"}


async def test_an_address_that_is_none_shows_no_password() -> None:
    """The parser's own message quotes what it took for a port."""
    settings = Settings(
        queue_url="memory://",
        audit_log=AuditLog(mode="actions", sink="redis", redis_url="redis://user:secret/word@host:6379"),
    )
    with pytest.raises(BadSetting, match="redisURL is no Redis URL") as raised:
        async with audited(Telemetry(), settings, lambda _: AgentConfig(model="m")):
            pass
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None
