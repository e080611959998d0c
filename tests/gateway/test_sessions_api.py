"""The sessions API over HTTP: sessions, conversations, messages and their events."""

from __future__ import annotations

import pytest

from providers import AgentConfig
from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from tests.gateway.session_client import Events, answer, created, idle, is_final, listening, messages, said
from tests.sessions.talking import until
from worker.gateway.caller import Scope
from worker.settings import Settings

SCRIPT = {
    "scenarios": [
        {"match": "slow", "turns": [{"text": "one two three four five six seven eight", "chunk_delay_s": 0.05}]},
        {"match": "endless", "turns": [{"text": "word " * 2000, "chunk_delay_s": 0.02}]},
        {"match": "think", "turns": [{"thinking": "hm hm", "text": "thought about it"}]},
        {
            "match": "time",
            "turns": [
                {"thinking": "let me look", "tool_calls": [{"name": "read_output", "arguments": {"id": "x"}}]},
                {"text": "it said {last_result}"},
            ],
        },
        {"turns": [{"text": "echo {prompt}"}]},
    ]
}


@pytest.fixture(scope="module")
def gateway_config() -> Settings:
    """An agent with a script."""
    agent = AgentConfig(model="mock", provider="scripted", options={"script": SCRIPT})
    return gateway_settings(agent=agent)


async def test_a_message_is_answered_and_kept(gateway_server: GatewayServer) -> None:
    """A session's event stream tells the message and its chunks; afterwards the messages show both."""
    async with gateway_server.client() as client:
        session, conversation = await created(client)
        async with listening(client, f"/v1/sessions/{session}/events") as events:
            [first] = await events.until(lambda event: True)
            posted = await said(client, session, conversation, "hello")
            heard = await events.until(is_final)
        page = await messages(client, session, conversation)
    assert first.name == "session"
    assert first.data["id"] == session
    assert [event.name for event in heard if event.name == "message"] == ["message"]
    assert answer(heard) == "echo hello"
    assert heard[-1].data["type"] == "DONE"
    assert {event.data["task_id"] for event in heard if event.name == "chunk"} == {posted["task_id"]}
    [message] = page["messages"]
    assert (message["state"], message["content"], message["task_id"]) == ("done", "hello", posted["task_id"])
    assert message["message_id"] == posted["message_id"]
    assert message["answer"] == [{"type": "CONTENT", "content": "echo hello"}]


async def test_a_page_that_is_loaded_again_shows_everything(gateway_server: GatewayServer) -> None:
    """In the middle of an answer, with another message waiting: the session tells what runs and waits, the messages
    what was said, and the events begun after it the whole running answer."""
    async with gateway_server.client() as client:
        session, conversation = await created(client)
        async with listening(client, f"/v1/sessions/{session}/events") as events:
            first = await said(client, session, conversation, "please think")
            await events.until(is_final)
        slow = await said(client, session, conversation, "endless")
        waiting = await said(client, session, conversation, "and then")
        whole = (await client.get(f"/v1/sessions/{session}")).json()
        page = await messages(client, session, conversation)
        async with listening(client, f"/v1/sessions/{session}/events", after=whole["last_event_id"]) as events:
            heard = await events.until(lambda event: event.data.get("seq") == 2)
        stopped = await client.post(f"/v1/sessions/{session}/conversations/{conversation}/stop")
        after = await messages(client, session, conversation)
    assert (slow["state"], waiting["state"], waiting["task_id"]) == ("running", "queued", "")
    assert whole["session"]["title"] == "please think"
    [shown] = whole["conversations"]
    assert shown["running"]["task_id"] == slow["task_id"]
    assert [each["content"] for each in shown["waiting"]] == ["and then"]
    assert [(each["state"], each["content"]) for each in page["messages"]] == [
        ("done", "please think"),
        ("running", "endless"),
        ("queued", "and then"),
    ]
    assert page["messages"][0]["answer"] == [
        {"type": "THINKING", "content": "hm hm"},
        {"type": "CONTENT", "content": "thought about it"},
    ]
    assert page["messages"][0]["task_id"] == first["task_id"]
    assert [event.data["seq"] for event in heard if event.name == "chunk"] == [0, 1, 2]
    assert stopped.json()["message_ids"] == [slow["message_id"], waiting["message_id"]]
    assert [each["content"] for each in after["messages"]][:2] == ["please think", "endless"]


async def test_two_devices_hear_the_same(gateway_server: GatewayServer) -> None:
    """What one says, the other hears too, question and answer."""
    async with gateway_server.client() as phone, gateway_server.client() as desk:
        session, conversation = await created(phone)
        path = f"/v1/sessions/{session}/events"
        async with listening(phone, path) as here, listening(desk, path) as there:
            await here.until(lambda event: event.name == "conversation")
            await there.until(lambda event: event.name == "conversation")
            await said(phone, session, conversation, "hello")
            mine, theirs = await here.until(is_final), await there.until(is_final)
    assert [event.data["content"] for event in theirs if event.name == "message"] == ["hello"]
    assert answer(mine) == answer(theirs) == "echo hello"


async def test_a_broken_connection_goes_on_where_it_was(gateway_server: GatewayServer) -> None:
    """With `Last-Event-ID` in the middle of an answer nothing is heard twice and nothing is missed, not even the
    messages that were answered meanwhile."""
    async with gateway_server.client() as client:
        session, conversation = await created(client)
        path = f"/v1/sessions/{session}/events"
        async with listening(client, path) as events:
            await said(client, session, conversation, "slow please")
            before = await events.until(lambda event: event.data.get("seq") == 3)
        await said(client, session, conversation, "second")
        async with listening(client, path) as events:
            await events.until(lambda event: event.name == "chunk" and is_final(event) and "second" in _asked(events))
        async with listening(client, path, last_id=before[-1].id) as events:
            after = await events.until(is_final)
            second = await events.until(is_final)
    seqs = [event.data["seq"] for event in (*before, *after) if event.name == "chunk"]
    assert seqs == list(range(len(seqs)))
    assert answer([*before, *after]) == "one two three four five six seven eight"
    assert [event.name for event in after if event.name == "message"] == []
    assert answer(second) == "echo second"
    assert [event.data["number"] for event in second if event.name == "message"] == [2]


def _asked(events: Events) -> list[str]:
    return [event.data["content"] for event in events.seen if event.name == "message"]


async def test_several_conversations_at_the_same_time(gateway_server: GatewayServer) -> None:
    """Two conversations of one session are answered beside each other, on one stream; each goes on with its own."""
    async with gateway_server.client() as client:
        session, first = await created(client)
        async with listening(client, f"/v1/sessions/{session}/events") as events:
            opened = await client.post(f"/v1/sessions/{session}/conversations", json={"title": "second"})
            second = opened.json()["id"]
            await said(client, session, first, "endless")
            await events.until(lambda event: event.data.get("seq") == 0)
            await said(client, session, second, "quick")
            heard = await events.until(lambda event: is_final(event) and event.data["conversation_id"] == second)
            await client.post(f"/v1/sessions/{session}/conversations/{first}/stop")
            ended = await events.until(is_final)
        chat = (await client.get(f"/v1/sessions/{session}/conversations/{second}")).json()
    assert opened.status_code == 201
    assert answer([event for event in heard if event.data.get("conversation_id") == second]) == "echo quick"
    assert ended[-1].data["type"] == "ERROR"
    assert (chat["title"], chat["number"], chat["message_count"]) == ("second", 1, 1)


async def test_tool_calls_unfold(gateway_server: GatewayServer) -> None:
    """Messages show each tool call with its arguments and its result, in their order."""
    async with gateway_server.client() as client:
        session, conversation = await created(client)
        async with listening(client, f"/v1/sessions/{session}/events") as events:
            await said(client, session, conversation, "what time")
            heard = await events.until(is_final)
        [message] = (await messages(client, session, conversation))["messages"]
    types = [event.data["type"] for event in heard if event.name == "chunk"]
    assert [kind for kind in types if kind != "CONTENT"] == [*["THINKING"] * types.count("THINKING"), *TOOL, "DONE"]
    assert [part["type"] for part in message["answer"]] == ["THINKING", "TOOL_CALL", "TOOL_RESULT", "CONTENT"]
    assert message["answer"][1]["arguments"] == {"id": "x"}
    assert message["answer"][2]["is_error"] is True


TOOL = ("TOOL_CALL", "TOOL_RESULT")


async def test_retry_and_titles(gateway_server: GatewayServer) -> None:
    """The last message is asked again under a new task; names can be changed; what is deleted is gone."""
    async with gateway_server.client() as client:
        session, conversation = await created(client, title="My session")
        base = f"/v1/sessions/{session}/conversations/{conversation}"
        nothing = await client.post(f"{base}/retry")
        async with listening(client, f"/v1/sessions/{session}/events") as events:
            first = await said(client, session, conversation, "hello")
            await events.until(is_final)
            await idle(client, session, conversation)
            again = await client.post(f"{base}/retry")
            await events.until(is_final)
        page = await messages(client, session, conversation)
        renamed = await client.patch(base, json={"title": "Greetings"})
        whole = await client.patch(f"/v1/sessions/{session}", json={"title": "Ours", "is_closed": True})
        refused = await client.post(f"{base}/messages", json={"content": "more"})
        gone = await client.delete(base)
        missing = await client.get(base)
        deleted = await client.delete(f"/v1/sessions/{session}")
        after = await client.get(f"/v1/sessions/{session}")
    assert (nothing.status_code, nothing.json()["code"]) == (409, "nothing_to_retry")
    assert [each["task_id"] for each in page["messages"]] == [again.json()["task_id"]]
    assert again.json()["task_id"] != first["task_id"]
    assert renamed.json()["title"] == "Greetings"
    assert (whole.json()["title"], whole.json()["is_closed"]) == ("Ours", True)
    assert (refused.status_code, refused.json()["code"]) == (409, "session_closed")
    assert (gone.status_code, missing.status_code, deleted.status_code, after.status_code) == (204, 404, 204, 404)
    assert missing.json()["code"] == "conversation_not_found"
    assert after.json()["code"] == "session_not_found"


async def test_pages_of_messages(gateway_server: GatewayServer) -> None:
    """The newest page first, then what is before it, until there is nothing more."""
    async with gateway_server.client() as client:
        session, conversation = await created(client)
        async with listening(client, f"/v1/sessions/{session}/events") as events:
            for number in range(5):
                await said(client, session, conversation, f"m{number}")
            for _ in range(5):
                await events.until(is_final)
            await idle(client, session, conversation)
        newest = await messages(client, session, conversation, limit=2)
        middle = await messages(client, session, conversation, limit=2, before=newest["messages"][0]["task_id"])
        oldest = await messages(client, session, conversation, limit=2, before=middle["messages"][0]["task_id"])
        wrong = await client.get(f"/v1/sessions/{session}/conversations/{conversation}/messages?limit=0")
    assert [[each["content"] for each in page["messages"]] for page in (newest, middle, oldest)] == [
        ["m3", "m4"],
        ["m1", "m2"],
        ["m0"],
    ]
    assert [page["has_more"] for page in (newest, middle, oldest)] == [True, True, False]
    assert wrong.status_code == 400


async def test_sessions_belong_to_their_owner(gateway_server: GatewayServer) -> None:
    """Another key sees and changes nothing of a session, on no path; and only keys that may use agents have any."""
    stranger = gateway_server.make_key([Scope.AGENTS_USE])
    reader = gateway_server.make_key([Scope.TASKS_READ])
    async with (
        gateway_server.client() as client,
        gateway_server.client(stranger) as other,
        gateway_server.client(reader) as weak,
    ):
        session, conversation = await created(client)
        base = f"/v1/sessions/{session}"
        chat = f"{base}/conversations/{conversation}"
        tries = [
            ("GET", base, None),
            ("PATCH", base, {"title": "mine"}),
            ("DELETE", base, None),
            ("GET", f"{base}/events", None),
            ("POST", f"{base}/conversations", {}),
            ("GET", chat, None),
            ("PATCH", chat, {"title": "mine"}),
            ("DELETE", chat, None),
            ("GET", f"{chat}/messages", None),
            ("POST", f"{chat}/messages", {"content": "hi"}),
            ("POST", f"{chat}/stop", None),
            ("POST", f"{chat}/retry", None),
        ]
        for method, path, body in tries:
            for someone, status in ((other, 404), (weak, 403)):
                response = await someone.request(method, path, json=body)
                assert response.status_code == status, (method, path, response.text)
        assert (await weak.post("/v1/sessions", json={})).status_code == 403
        listed = (await other.get("/v1/sessions")).json()
        mine = (await client.get("/v1/sessions?limit=1")).json()
    assert listed == {"sessions": [], "has_more": False}
    assert [each["id"] for each in mine["sessions"]] == [session]


async def test_what_does_not_fit_is_refused(gateway_server: GatewayServer) -> None:
    """Empty and overlong messages, unknown agents and positions: each with what was wrong."""
    async with gateway_server.client() as client:
        session, conversation = await created(client)
        path = f"/v1/sessions/{session}/conversations/{conversation}/messages"
        refused = {
            "empty": await client.post(path, json={"content": "  "}),
            "long": await client.post(path, json={"content": "x" * 260_000}),
            "overrides": await client.post(path, json={"content": "x", "overrides": {"model": 5}}),
            "agent": await client.post("/v1/sessions", json={"agent": "nobody"}),
            "position": await client.get(f"/v1/sessions/{session}/events?after=nonsense"),
            "unknown": await client.get(f"/v1/sessions/{session}/conversations/nope"),
            "key": await client.post(path, json={"content": "x"}, headers={"Idempotency-Key": "k" * 300}),
        }
    statuses = {name: response.status_code for name, response in refused.items()}
    assert statuses == {
        "empty": 422,
        "long": 413,
        "overrides": 202,
        "agent": 404,
        "position": 400,
        "unknown": 404,
        "key": 400,
    }


async def test_an_idempotency_key_makes_one_message(gateway_server: GatewayServer) -> None:
    """The same request twice is one message."""
    async with gateway_server.client() as client:
        session, conversation = await created(client)
        one = await said(client, session, conversation, "hi", **{"Idempotency-Key": "k1"})
        two = await said(client, session, conversation, "hi", **{"Idempotency-Key": "k1"})
    assert one["message_id"] == two["message_id"] == "k1"
    assert one["task_id"] == two["task_id"]


async def test_a_gateway_may_refuse_while_it_answers() -> None:
    """With `SHOAL_CONVERSATION_BUSY=refuse` a second message is 409, and comes again once the first is answered."""
    agent = AgentConfig(model="mock", provider="scripted", options={"script": SCRIPT})
    settings = gateway_settings(agent=agent, conversation_busy="refuse")
    with GatewayServer(settings) as server:
        async with server.client() as client:
            session, conversation = await created(client)
            path = f"/v1/sessions/{session}/conversations/{conversation}/messages"
            await said(client, session, conversation, "endless")
            refused = await client.post(path, json={"content": "me too"})
            await client.post(f"/v1/sessions/{session}/conversations/{conversation}/stop")
            await idle(client, session, conversation)
            taken = await client.post(path, json={"content": "me too"})
    assert (refused.status_code, refused.json()["code"]) == (409, "conversation_busy")
    assert taken.status_code == 202


async def test_two_gateways_share_everything(queue_url: str) -> None:
    """A session opened through one gateway is gone on with through another: its events are heard there, messages go in
    through either, and their order holds."""
    agent = AgentConfig(model="mock", provider="scripted", options={"script": SCRIPT})
    settings = gateway_settings(agent=agent)
    with (
        GatewayServer(settings, queue_url=queue_url) as one,
        GatewayServer(settings, queue_url=queue_url, with_worker=False) as other,
    ):
        key = one.admin_key

        async def knows_key() -> bool:
            async with other.client(key) as client:
                return (await client.get("/v1/sessions")).status_code == 200

        await until(knows_key)
        async with one.client(key) as here, other.client(key) as there:
            session, conversation = await created(here)
            async with listening(there, f"/v1/sessions/{session}/events") as events:
                await events.until(lambda event: event.name == "conversation")
                for number, client in enumerate((here, there, here, there)):
                    await said(client, session, conversation, f"m{number}")
                heard = [await events.until(is_final) for _ in range(4)]
            async with listening(here, f"/v1/sessions/{session}/events", last_id=heard[1][-1].id) as events:
                rest = [await events.until(is_final) for _ in range(2)]
            page = await messages(there, session, conversation)
    assert [answer(each) for each in heard] == [f"echo m{number}" for number in range(4)]
    assert [answer(each) for each in rest] == ["echo m2", "echo m3"]
    assert [each["content"] for each in page["messages"]] == [f"m{number}" for number in range(4)]
