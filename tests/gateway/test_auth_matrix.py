"""Every operation of every module against every kind of caller. A new operation is in here by being declared."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import httpx
import pytest

from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from tests.gateway.requests_of import PARAMETER, status_and_text, walker
from tests.teams.triggers.replicas import plan
from worker.agents.model import Agent, App, Group, Llm
from worker.approvals import Approval
from worker.datasources.model import Datasource
from worker.gateway.app import all_operations
from worker.gateway.caller import Scope
from worker.gateway.context import Gateway
from worker.gateway.operation import Operation
from worker.settings import Settings
from worker.teams.notify.model import Channel, Notify
from worker.teams.team_objects import StoredTeam
from worker.teams.triggers.model import Target, Trigger

MARK = "acmemark"
"""Is in the name of everything that belongs to the tenant `acme`."""

OPERATIONS = all_operations()
CLOSED = [operation for operation in OPERATIONS if operation.scope is not None]
NAMES = {id(operation): f"{operation.method} {operation.path}" for operation in OPERATIONS}
DENIED = (401, 403)
WEBHOOKS = {"/v1/triggers/{slug}/fire", "/triggers/{namespace}/{slug}/fire"}
"""They ask for a trigger's own token, and let nobody in without it."""


class Acme(NamedTuple):
    """What a tenant has."""

    key: str
    """Of its administrator, who made all of it."""
    parameters: dict[str, dict[str, str]]
    """Path prefix -> parameters of such paths."""


@pytest.fixture(scope="module")
def gateway_config() -> Settings:
    """Requests come from an address each, so that none is damped."""
    return gateway_settings(gateway={"trusted_proxies": ("127.0.0.1",)})


@pytest.fixture(scope="module")
def acme(gateway_server: GatewayServer) -> Acme:
    """One of everything, of the tenant `acme`."""
    return gateway_server.do(lambda gateway: _make(gateway, gateway_server))


async def _make(gateway: Gateway, server: GatewayServer) -> Acme:
    declared = gateway.definitions
    own: dict[str, Any] = {"slug": MARK, "namespace": "acme"}
    await declared.llms.create(Llm(**own, provider="scripted", model="mock"))
    await declared.apps.create(App(**own, llms=(MARK,)))
    agent = await declared.agents.create(Agent(**own, app=MARK))
    await declared.groups.create(Group(**own))
    await declared.datasources.create(Datasource(**own))
    await declared.teams.create(StoredTeam(**own, plan=plan(MARK)))
    await declared.triggers.create(Trigger(**own, type="webhook", targets=(Target(team=MARK),)))
    await declared.notifies.create(Notify(**own, channels=(Channel(url="https://example.com/"),)))
    run = await gateway.runs.start(plan(MARK), {}, tenant="acme")
    question = await gateway.approvals.store.open(Approval(message=MARK, tenant="acme"), key=MARK)
    key, secret = await gateway.keys.create(MARK, [Scope.ADMIN], tenant="acme")
    async with server.client(key=secret) as client:
        task = await _post(client, "/v1/tasks", {"prompt": MARK, "agent": MARK})
        session = (await _post(client, "/v1/sessions", {"agent": MARK, "title": MARK}))["session"]
        talk = await _post(client, f"/v1/sessions/{session['id']}/conversations", {"title": MARK})
        answer = await _post(client, "/v1/responses", {"model": MARK, "input": MARK, "background": True})
    number, slug = {"id": str(agent.id)}, {"slug": MARK}
    parameters = {
        "/v1/keys/": {"id": key.slug},
        "/v1/approvals/": {"id": question.id},
        "/v1/tasks/": {"id": task["id"], "name": "report.md"},
        "/v1/runs/": {"id": run, "step": "write"},
        "/v1/sessions/": {"id": session["id"], "cid": talk["id"]},
        "/v1/agents/": slug,
        "/v1/apps/": slug,
        "/v1/llms/": slug,
        "/v1/groups/": slug,
        "/v1/datasources/": {**slug, "id": "document"},
        "/v1/teams/": slug,
        "/v1/triggers/": slug,
        "/v1/notifies/": slug,
        "/v1/ops/dead/": {"id": task["id"]},
        "/v1/ops/workers/": {"id": "worker"},
        "/v1/ops/providers/": {"name": "scripted"},
        "/v1/responses/": {"id": answer["id"]},
        "/v1/models/": {"id": MARK},
        "/common/agents/": number,
        "/api/agents/": number,
        "/api/v1/agents/": number,
        "/api/v1/plugins/": {"id": "999"},
    }
    return Acme(secret, parameters)


async def _post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert answer.is_success, (path, answer.text)
    made: dict[str, Any] = answer.json()
    return made


def _parameters(operation: Operation, acme: Acme) -> dict[str, str]:
    found = next((given for prefix, given in acme.parameters.items() if operation.path.startswith(prefix)), {})
    missing = set(PARAMETER.findall(operation.path)) - set(found)
    assert not missing, f"{operation.path}: say in `_make` what its {missing} may be"
    return found


async def test_nobody_enters_without_a_good_key(gateway_server: GatewayServer) -> None:
    """No credential, a wrong one, an expired and a revoked one: 401 everywhere, before anything else is looked at."""
    expired = gateway_server.make_key([Scope.ADMIN], expires_at=time.time() + 0.2)
    revoked = gateway_server.make_key([Scope.ADMIN])
    gateway_server.do(lambda gateway: gateway.keys.revoke(revoked.split("_")[1]))
    good = gateway_server.make_key([Scope.ADMIN])
    wrong = good[:-1] + ("0" if good[-1] != "0" else "1")
    while time.time() < gateway_server.gateway.keys.get(expired.split("_")[1]).value.expires_at:  # type: ignore[operator]  # it was given one
        time.sleep(0.05)
    bad = {"none": "", "wrong": wrong, "expired": expired, "revoked": revoked, "junk": "x"}
    failures = []
    async with walker(gateway_server.url) as client:
        for operation in CLOSED:
            for what, key in bad.items():
                status, _ = await status_and_text(client, operation, key=key)
                if status != 401:
                    failures.append((NAMES[id(operation)], what, status))
    assert failures == []


async def test_what_needs_no_key_is_little(gateway_server: GatewayServer) -> None:
    """Health, the API's description and the pages' files; a new one has to be added here on purpose."""
    opened = {operation.path for operation in OPERATIONS if operation.scope is None}
    pages = {path for path in opened if path in ("/", "/dashboard", "/chat") or path.startswith("/pages/")}
    assert opened - pages == {
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/v1/openapi.json",
        "/docs",
        "/docs/style.css",
        *WEBHOOKS,
    }
    async with walker(gateway_server.url) as client:
        for operation in OPERATIONS:
            if operation.scope is None:
                status, text = await status_and_text(client, operation)
                assert (status in DENIED) is (operation.path in WEBHOOKS), NAMES[id(operation)]
                assert MARK not in text


@pytest.mark.parametrize("scope", list(Scope))
async def test_a_scope_opens_what_needs_it_and_nothing_else(gateway_server: GatewayServer, scope: Scope) -> None:
    """403 that names the missing scope, for everything else; `admin` is never refused for want of a scope."""
    key = gateway_server.make_key([scope], tenant=f"only-{scope.replace('.', '-')}")
    failures = []
    async with walker(gateway_server.url) as client:
        for operation in CLOSED:
            is_open = scope in (Scope.ADMIN, operation.scope)
            if is_open and operation.scope in (Scope.OPS_WRITE,) and not PARAMETER.search(operation.path):
                continue  # would pause the queue for the tests after this one
            status, text = await status_and_text(client, operation, key=key)
            is_refused = status == 403 and (operation.denied or "needs the scope") in text
            if status == 401 or is_refused == is_open:
                failures.append((NAMES[id(operation)], status, text[:100]))
    assert failures == []


async def test_a_key_of_one_tenant_meets_nothing_of_another(gateway_server: GatewayServer, acme: Acme) -> None:
    """With all scopes, and the right ids: what belongs to somebody else is forbidden, or does not exist; lists leave it
    out, and no answer has a word of it."""
    stranger = gateway_server.make_key([Scope.ADMIN], tenant="other")
    failures = []
    async with walker(gateway_server.url) as client:
        for operation in CLOSED:
            parameters = _parameters(operation, acme)
            if not PARAMETER.search(operation.path) and operation.method != "GET":
                continue  # makes something new, of the stranger's own
            body = _body_for(operation)
            status, text = await status_and_text(client, operation, key=stranger, parameters=parameters, body=body)
            is_hidden = status in (403, 404) if PARAMETER.search(operation.path) else status < 500
            leaked = MARK in text and status < 400  # an error may repeat what the request named
            if not is_hidden or leaked:
                failures.append((NAMES[id(operation)], status, text[:300]))
    assert failures == []


async def test_the_same_requests_work_for_the_tenant_itself(gateway_server: GatewayServer, acme: Acme) -> None:
    """So that the test above cannot pass because all ids are wrong: what only reads, answers."""
    failures = []
    async with walker(gateway_server.url) as client:
        for operation in CLOSED:
            parameters = _parameters(operation, acme)
            if operation.method != "GET" or not PARAMETER.search(operation.path) or _is_anothers(operation):
                continue
            status, text = await status_and_text(client, operation, key=acme.key, parameters=parameters)
            if status >= 400:
                failures.append((NAMES[id(operation)], status, text[:300]))
    assert failures == []


async def test_a_key_of_one_app_uses_no_agent_of_another(gateway_server: GatewayServer, acme: Acme) -> None:
    """It is bound to its app, whatever API it speaks."""
    bound = gateway_server.make_key([Scope.AGENTS_USE, Scope.TASKS_WRITE], app="another-app")
    bodies = {
        "/v1/tasks": {"prompt": "hello", "agent": MARK, "tenant": "acme"},
        "/v1/sessions": {"agent": MARK},
        "/v1/chat/completions": {"model": MARK, "messages": [{"role": "user", "content": "hello"}]},
        "/v1/responses": {"model": MARK, "input": "hello"},
        "/v1/messages": {"model": MARK, "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]},
    }
    agents = ("/common/agents/{", "/api/agents/{", "/v1/models/{", "/v1/agents/{")
    failures = []
    async with walker(gateway_server.url) as client:
        for operation in CLOSED:
            is_agents = operation.path.startswith(agents) and operation.scope is Scope.AGENTS_USE
            if not is_agents and not (operation.method == "POST" and operation.path in bodies):
                continue
            parameters, body = _parameters(operation, acme), bodies.get(operation.path)
            status, text = await status_and_text(client, operation, key=bound, parameters=parameters, body=body)
            if status not in (403, 404):
                failures.append((NAMES[id(operation)], status, text[:300]))
    assert failures == []


def _is_anothers(operation: Operation) -> bool:
    """What is shown to operators of the whole fleet, or has to exist in ways that `_make` does not care for."""
    return operation.is_file or operation.path.startswith(("/v1/ops/", "/api/v1/plugins/"))


def _body_for(operation: Operation) -> Any:
    """A body that is taken, where the least one is not: what names the object has to fit the path."""
    name = operation.path.split("/")[2] if operation.path.startswith("/v1/") else ""
    if operation.method == "PUT" and name in ("agents", "apps", "llms", "groups", "datasources"):
        return {"slug": MARK}
    if operation.method == "PUT" and name == "triggers":
        return {"slug": MARK, "cron": "@daily", "targets": [{"team": MARK}]}
    if operation.method == "PUT" and name == "notifies":
        return {"slug": MARK, "channels": [{"url": "https://example.com/"}]}
    return None
