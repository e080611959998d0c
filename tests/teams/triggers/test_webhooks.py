"""Webhooks over HTTP: who may fire them, what they answer, waiting for the run and watching it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from providers import AgentConfig
from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from worker.gateway.context import Gateway
from worker.settings import Settings
from worker.teams.errors import RunEnded
from worker.teams.plan import InputSpec, Plan, Role, Step, Team
from worker.teams.run_state import RunState
from worker.teams.team_objects import StoredTeam
from worker.teams.triggers.model import Target, Trigger

SECRET = "a-token-from-the-environment"


@pytest.fixture(scope="module")
def gateway_config() -> Settings:
    """The scripted agent answers by words of the prompt; requests come from an address each, so that none is damped."""
    return gateway_settings(gateway={"trusted_proxies": ("127.0.0.1",)})


@pytest.fixture(scope="module", autouse=True)
def _stored(gateway_server: GatewayServer) -> Iterator[None]:
    gateway_server.do(_store)
    yield
    gateway_server.do(_cancel_all)  # the worker would wait for them


async def _cancel_all(gateway: Gateway) -> None:
    for run in await gateway.runs.list(limit=500):
        if not run.phase.is_final:
            with contextlib.suppress(RunEnded):
                await gateway.runs.cancel(run.id)
            await _ended(gateway, run.id)


async def _store(gateway: Gateway) -> None:
    declared = gateway.definitions
    await declared.teams.create(StoredTeam(slug="answer", plan=_plan("answer", "Say: {{ .input.question }}")))
    await declared.teams.create(StoredTeam(slug="slow", plan=_plan("slow", "wait", delay_s=30.0)))
    await declared.teams.create(StoredTeam(slug="fails", plan=_plan("fails", "x", fails=True)))
    for slug, team in (("ask", "answer"), ("slow", "slow"), ("fails", "fails")):
        given = {"question": "{{ .trigger.body.issue.title }}"} if team == "answer" else {}
        await declared.triggers.create(Trigger(slug=slug, type="webhook", targets=(Target(team=team, input=given),)))
    await declared.teams.create(StoredTeam(slug="echo", plan=_plan("echo", "{{ .input.text }}")))
    given = {"of": "{{ .trigger.run }}", "text": "{{ .trigger.output }}"}
    after = Trigger(
        slug="after", type="team-output", watched_team="answer", targets=(Target(team="echo", input=given),)
    )
    await declared.triggers.create(after)
    await declared.triggers.create(
        Trigger(slug="both", type="webhook", targets=(Target(team="answer"), Target(team="answer")))
    )
    await declared.triggers.create(Trigger(slug="nightly", cron="@daily", targets=(Target(team="answer"),)))
    await declared.triggers.create(
        Trigger(slug="tenants", namespace="acme", type="webhook", targets=(Target(team="answer"),))
    )


def _plan(name: str, prompt: str, *, delay_s: float = 0.0, fails: bool = False) -> Plan:
    options = {"script": {"delay_s": delay_s}} if delay_s else {}
    config = AgentConfig(model="mock", provider="none-such" if fails else "scripted", options=options)
    step = Step(name="only", role="one", inputs={"prompt": prompt})
    inputs = (InputSpec(name="question", required=True),) if name == "answer" else ()
    return Plan(
        name=name, teams=(Team(name=name, roles=(Role(name="one", config=config),), steps=(step,), inputs=inputs),)
    )


def _token(server: GatewayServer, slug: str, namespace: str = "") -> str:
    async def make(gateway: Gateway) -> str:
        stored = gateway.definitions.triggers.get(slug, namespace)
        assert stored is not None
        return await gateway.trigger_desk.triggers.tokens.make(stored)

    return server.do(make)


_addresses = iter(range(1, 250))


@contextmanager
def _from_another_address() -> Iterator[dict[str, str]]:
    yield {"X-Forwarded-For": f"198.18.7.{next(_addresses)}"}


async def _fire(server: GatewayServer, slug: str, *, token: str, body: Any = None, **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    with _from_another_address() as address:
        async with server.client(key="") as client:
            return await client.post(
                more.pop("path", f"/v1/triggers/{slug}/fire"),
                headers={**address, **({"Authorization": f"Bearer {token}"} if token else {}), **headers},
                json=body,
                **more,
            )


BODY = {"issue": {"title": "why is it so?"}}


async def test_a_webhook_starts_a_run_with_fields_of_its_body(gateway_server: GatewayServer) -> None:
    """202 in kubeswarm's words, and the run has the input that the template made of the body."""
    token = _token(gateway_server, "ask")
    answer = await _fire(gateway_server, "ask", token=token, body=BODY)
    told = answer.json()
    assert (answer.status_code, told["fired"], told["trigger"], told["targets"]) == (202, True, "ask", 1)
    state = gateway_server.do(lambda gateway: _ended(gateway, told["runs"][0]))
    assert state.input == {"question": "why is it so?"}
    assert state.phase == "Succeeded"


async def _ended(gateway: Gateway, run_id: str) -> RunState:
    state = None
    async for state in gateway.runs.follow(run_id):
        if state.phase.is_final:
            break
    assert state is not None
    return state


async def test_kubeswarms_path_and_a_token_in_the_query_work_too(gateway_server: GatewayServer) -> None:
    """`/triggers/default/<name>/fire` is everybody's trigger of that name."""
    token = _token(gateway_server, "ask")
    path = "/triggers/default/ask/fire"
    assert (await _fire(gateway_server, "ask", token=token, body=BODY, path=path)).status_code == 202
    assert (await _fire(gateway_server, "ask", token="", body=BODY, params={"token": token})).status_code == 202


async def test_nobody_fires_without_its_own_token(gateway_server: GatewayServer) -> None:
    """None, a wrong one, another trigger's, an old one, one for a trigger that is not there, a key without the scope:
    401 with the same words, so that nobody learns what there is."""
    old, new = _token(gateway_server, "ask"), _token(gateway_server, "ask")
    others = _token(gateway_server, "slow")
    reader = gateway_server.make_key(["tasks.read"])
    foreign = gateway_server.make_key(["tasks.write"], tenant="other")
    for slug, token in (("ask", ""), ("ask", "x"), ("ask", others), ("ask", old), ("none-such", new), ("ask", reader)):
        answer = await _fire(gateway_server, slug, token=token, body=BODY)
        assert answer.status_code == 401, (slug, token)
        assert "there is no trigger" in answer.json()["detail"]
    query = {"namespace": "acme"}
    assert (await _fire(gateway_server, "tenants", token=foreign, body=BODY, params=query)).status_code == 401


async def test_a_key_that_may_submit_tasks_may_fire(gateway_server: GatewayServer) -> None:
    """Of the trigger's tenant, or of none."""
    for key in (gateway_server.make_key(["tasks.write"]), gateway_server.make_key(["tasks.write"], tenant="acme")):
        query = {"namespace": "acme"}
        answer = await _fire(gateway_server, "tenants", token=key, body=BODY, params=query)
        assert answer.status_code == 422, "it was fired: only its input does not fit"
        assert 'required input parameter "question" is missing' in answer.json()["detail"]


async def test_a_token_may_stand_in_the_environment(
    gateway_server: GatewayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trigger names the variable; while it is not set, nothing opens it."""
    trigger = Trigger(slug="by-env", type="webhook", token_env="HOOK_TOKEN", targets=(Target(team="slow"),))
    gateway_server.do(lambda gateway: gateway.definitions.triggers.create(trigger))
    assert (await _fire(gateway_server, "by-env", token=SECRET)).status_code == 401
    monkeypatch.setenv("HOOK_TOKEN", SECRET)
    assert (await _fire(gateway_server, "by-env", token=SECRET)).status_code == 202
    assert (await _fire(gateway_server, "by-env", token=SECRET + "x")).status_code == 401


async def test_the_same_idempotency_key_fires_once(gateway_server: GatewayServer) -> None:
    """Six requests at once, and one later: one run; with another body it is refused."""
    token, headers = _token(gateway_server, "ask"), {"Idempotency-Key": "delivery-1"}
    answers = await asyncio.gather(
        *(_fire(gateway_server, "ask", token=token, body=BODY, headers=headers) for _ in range(6))
    )
    answers.append(await _fire(gateway_server, "ask", token=token, body=BODY, headers=headers))
    assert {answer.status_code for answer in answers} == {202}
    assert len({tuple(answer.json()["runs"]) for answer in answers}) == 1
    assert [answer.json().get("isRepeated", False) for answer in answers].count(False) == 1
    other = await _fire(gateway_server, "ask", token=token, body={"issue": {"title": "?"}}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert gateway_server.do(_kept_bodies) == [], "a body is kept as long as it is needed"


async def test_who_guesses_tokens_is_told_to_wait(gateway_server: GatewayServer) -> None:
    """Over all triggers together, and a right token still opens from there."""
    token = _token(gateway_server, "ask")
    with _from_another_address() as address:
        async with gateway_server.client(key="") as client:
            for number in range(22):
                guess = {**address, "Authorization": f"Bearer shtrg_{number}"}
                refused = await client.post(f"/v1/triggers/none-{number}/fire", headers=guess)
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_failures")
            assert int(refused.headers["Retry-After"]) >= 1
            right = {**address, "Authorization": f"Bearer {token}"}
            assert (await client.post("/v1/triggers/ask/fire", headers=right, json=BODY)).status_code == 202


async def _kept_bodies(gateway: Gateway) -> list[str]:
    return [key async for key, _ in gateway.runs.state.scan("trigger-given/")]


async def test_a_request_without_a_key_is_remembered_in_the_history_alone(gateway_server: GatewayServer) -> None:
    """Nobody can send it again: what many requests leave behind would only fill the store."""

    async def claimed(gateway: Gateway) -> int:
        return len([key async for key, _ in gateway.runs.state.scan("trigger-firings//ask/")])

    before, token = gateway_server.do(claimed), _token(gateway_server, "ask")
    answer = await _fire(gateway_server, "ask", token=token, body=BODY)
    assert gateway_server.do(claimed) == before
    async with gateway_server.client() as client:
        status = (await client.get("/v1/triggers/ask/status")).json()
    assert status["firings"][0]["targets"][0]["run_id"] == answer.json()["runs"][0]


async def test_sync_mode_answers_with_the_result(gateway_server: GatewayServer) -> None:
    """Phase, output and tokens of the run."""
    token = _token(gateway_server, "ask")
    answer = await _fire(gateway_server, "ask", token=token, body=BODY, params={"mode": "sync", "timeout": "30s"})
    told = answer.json()
    assert answer.status_code == 200, told
    assert (told["status"], told["phase"]) == ("succeeded", "Succeeded")
    assert told["output"]
    assert told["run"].startswith("ask-")
    assert told["tokenUsage"]["totalTokens"] > 0


async def test_sync_mode_tells_of_a_failure_and_of_its_time(gateway_server: GatewayServer) -> None:
    """500 with the reason; 504 in kubeswarm's words while the run goes on."""
    token = _token(gateway_server, "fails")
    failed = await _fire(gateway_server, "fails", token=token, params={"mode": "sync"})
    assert (failed.status_code, failed.json()["status"]) == (500, "failed")
    assert failed.json()["error"]
    token = _token(gateway_server, "slow")
    late = await _fire(gateway_server, "slow", token=token, params={"mode": "sync", "timeout": "50ms"})
    assert late.status_code == 504
    assert late.json()["error"] == "timed out after 50ms waiting for run to complete"
    run_id = late.json()["run"]
    assert not (gateway_server.do(lambda gateway: gateway.runs.read(run_id))).state.phase.is_final


async def test_sse_mode_streams_steps_tokens_and_the_end(gateway_server: GatewayServer) -> None:
    """The tokens, put together, are the output."""
    token = _token(gateway_server, "ask")
    answer = await _fire(gateway_server, "ask", token=token, body=BODY, params={"mode": "sse"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = _events(answer.text)
    names = [name for name, _ in events]
    assert (names[0], names[-1]) == ("step.started", "flow.completed")
    assert "step.completed" in names
    said = "".join(data["token"] for name, data in events if name == "token")
    assert said
    assert said in events[-1][1]["output"]
    assert events[-1][1]["status"] == "succeeded"


async def test_sse_mode_ends_in_time_and_tells_of_failures(gateway_server: GatewayServer) -> None:
    """`error` when the time is over, `flow.failed` when the run fails."""
    token = _token(gateway_server, "slow")
    answer = await _fire(gateway_server, "slow", token=token, params={"mode": "sse", "timeout": "50ms"})
    assert _events(answer.text)[-1] == ("error", {"error": "timed out after 50ms"})
    token = _token(gateway_server, "fails")
    answer = await _fire(gateway_server, "fails", token=token, params={"mode": "sse"})
    name, data = _events(answer.text)[-1]
    assert (name, data["status"]) == ("flow.failed", "failed")


def _events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


async def test_too_many_waiting_are_refused_before_anything_starts(gateway_server: GatewayServer) -> None:
    """503 in kubeswarm's words; no run was started."""
    token = _token(gateway_server, "slow")

    async def runs(gateway: Gateway) -> int:
        return len(await gateway.runs.list(team="slow", limit=500))

    async def limit(gateway: Gateway, most: int) -> None:
        gateway.trigger_desk._most = most

    before = gateway_server.do(runs)
    gateway_server.do(lambda gateway: limit(gateway, 0))
    try:
        answer = await _fire(gateway_server, "slow", token=token, params={"mode": "sse"})
    finally:
        gateway_server.do(lambda gateway: limit(gateway, 500))
    assert (answer.status_code, answer.json()["detail"]) == (503, "too many concurrent SSE connections")
    assert gateway_server.do(runs) == before


@pytest.mark.parametrize(
    ("slug", "query", "status", "told"),
    [
        ("both", {"mode": "sync"}, 400, "sync mode requires exactly one target team"),
        ("both", {"mode": "sse"}, 400, "sse mode requires exactly one target team"),
        ("ask", {"mode": "sync", "timeout": "soon"}, 400, "1m30s"),
        ("ask", {"mode": "later"}, 400, "mode"),
        ("ask", {}, 422, ".title"),
    ],
)
async def test_what_cannot_be_done_is_said(
    gateway_server: GatewayServer, slug: str, query: dict[str, str], status: int, told: str
) -> None:
    """Modes that need one target, durations, and an input that does not fit."""
    token = _token(gateway_server, slug)
    body = BODY if query else None
    answer = await _fire(gateway_server, slug, token=token, body=body, params=query)
    assert answer.status_code == status, answer.text
    assert told in answer.text.replace('\\"', '"')


async def test_what_is_no_webhook_or_suspended_does_not_fire(gateway_server: GatewayServer) -> None:
    """An administrator's key opens both; kubeswarm's statuses."""
    key = gateway_server.admin_key
    assert (await _fire(gateway_server, "nightly", token=key)).status_code == 400
    async with gateway_server.client() as client:
        assert (await client.post("/v1/triggers/slow/suspend")).json()["is_suspended"] is True
        assert (await _fire(gateway_server, "slow", token=key)).status_code == 503
        assert (await client.post("/v1/triggers/slow/resume")).json()["is_suspended"] is False
    assert (await _fire(gateway_server, "slow", token=key)).status_code == 202


async def test_bodies_are_bounded_and_have_to_be_json(gateway_server: GatewayServer) -> None:
    """A megabyte, a broken document, another type."""
    token = _token(gateway_server, "slow")
    big = await _fire(gateway_server, "slow", token=token, body={"x": "y" * 1_100_000})
    assert big.status_code == 413
    for content, kind, status in ((b"{", "application/json", 400), (b"a=b", "application/x-www-form-urlencoded", 415)):
        async with gateway_server.client(key="") as client:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": kind, "X-Forwarded-For": "198.18.8.1"}
            answer = await client.post("/v1/triggers/slow/fire", content=content, headers=headers)
        assert answer.status_code == status


async def test_one_address_fires_so_often_and_guesses_less(gateway_server: GatewayServer) -> None:
    """The twenty-first request of a moment is 429, and so are wrong tokens again and again."""
    headers = {"X-Forwarded-For": "198.18.9.9"}
    statuses = []
    async with gateway_server.client(key="") as client:
        for _ in range(30):
            given = {**headers, "Authorization": "Bearer wrong"}
            statuses.append((await client.post("/v1/triggers/ask/fire", headers=given)).status_code)
    assert statuses[0] == 401
    assert 429 in statuses


async def test_triggers_are_managed_over_http(gateway_server: GatewayServer) -> None:
    """Made, shown, listed with what became of them, fired by hand, changed, deleted."""
    async with gateway_server.client() as client:
        new = {"slug": "made", "cron": "0 9 * * 1-5", "targets": [{"team": "slow"}]}
        made = await client.post("/v1/triggers", json=new)
        assert made.status_code == 201, made.text
        assert (await client.post("/v1/triggers/made/run", json={})).status_code == 202
        status = (await client.get("/v1/triggers/made/status")).json()
        assert (status["fired"], status["type"], len(status["firings"])) == (1, "cron", 1)
        assert status["next_fire_at"] > status["last_fired_at"]
        listed = (await client.get("/v1/trigger-status")).json()["items"]
        assert "made" in [each["slug"] for each in listed]
        bad = await client.patch("/v1/triggers/made", json={"cron": "every day"})
        assert bad.status_code == 422
        assert "five" in bad.json()["detail"]
        used = await client.delete("/v1/teams/slow")
        assert used.status_code == 409
        assert (await client.delete("/v1/triggers/made")).status_code == 204
        token = await client.post("/v1/triggers/ask/token")
        assert token.json()["path"] == "/v1/triggers/ask/fire"
    assert (await _fire(gateway_server, "ask", token=token.json()["token"], body=BODY)).status_code == 202


async def test_the_end_of_a_run_that_the_gateway_drives_fires_the_next(gateway_server: GatewayServer) -> None:
    """From the webhook over the run, its end, and another team's trigger, to the second run with the first's output."""
    token = _token(gateway_server, "ask")
    first = (await _fire(gateway_server, "ask", token=token, body=BODY)).json()["runs"][0]
    state = gateway_server.do(lambda gateway: _ended(gateway, first))

    async def following(gateway: Gateway) -> RunState:
        while True:
            for run in await gateway.runs.list(team="echo", limit=500):
                found = (await gateway.runs.read(run.id)).state
                if found.input["of"] == first:
                    return found
            await asyncio.sleep(0.01)

    assert gateway_server.do(following).input == {"of": first, "text": state.output}


FILE = """
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmTeam
metadata: {name: from-file}
spec:
  roles:
    - name: writer
      model: mock
      prompt: {inline: You write.}
  pipeline:
    - role: writer
      inputs: {prompt: hello}
"""


async def test_a_team_file_is_stored_over_http_and_again_changes_nothing(gateway_server: GatewayServer) -> None:
    """What it declares is there at once."""
    async with gateway_server.client() as client:
        first = await client.post("/v1/teams/apply", json={"text": FILE})
        assert first.status_code == 200, first.text
        assert [(each["kind"], each["slug"], each["what"]) for each in first.json()["changes"]] == [
            ("team", "from-file", "created")
        ]
        again = await client.post("/v1/teams/apply", json={"text": FILE})
        assert [each["what"] for each in again.json()["changes"]] == ["unchanged"]
        bad = await client.post("/v1/teams/apply", json={"text": "kind: SwarmTeam\nspec: 5"})
        assert bad.status_code == 422
