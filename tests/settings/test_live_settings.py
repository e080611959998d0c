"""The mirror of the live settings: what one process sets, all others see, whatever happens to the store meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import redis.asyncio
from structlog.testing import capture_logs

import providers
from providers import ConfigParam
from providers.live_config import Configurable
from queue_backends import Backend, StateChange, StateStore, open_backend
from tests.proxies import Proxy
from tests.servers import Server
from worker import following
from worker.errors import BadSetting
from worker.live_settings import PREFIX, LiveSettings
from worker.sealing import SEALED, Sealer
from worker.setting_keys import LONGEST_KEY, MOST_BYTES, register_key

LIMIT_S = 30.0
KEY = "a long enough key of ours"


class Chatty(Configurable):
    """A provider with one setting of each kind."""

    name = "chatty"
    params = (
        ConfigParam(key="base_url"),
        ConfigParam(key="api_key", secret=True),
        ConfigParam(key="retries", type="int"),
        ConfigParam(key="limits", type="json"),
    )


@pytest.fixture(autouse=True)
def _chatty() -> None:
    providers.register("chatty", Chatty)  # type: ignore[arg-type]  # it need not speak: only its settings are asked for


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A store of the test's own."""
    async with await open_backend("memory://") as opened:
        yield opened


async def until(holds: Callable[[], bool], live: LiveSettings) -> None:
    """Return once it holds; looked at with each change."""
    changed = asyncio.Event()
    forget = live.on_change(lambda _key, _value: changed.set())
    try:
        async with asyncio.timeout(LIMIT_S):
            while not holds():
                await changed.wait()
                changed.clear()
    finally:
        forget()


@asynccontextmanager
async def behind(server: Server, stream: str) -> AsyncIterator[tuple[LiveSettings, LiveSettings, Proxy]]:
    """A mirror whose way to the store can be cut, and one whose way cannot."""
    async with (
        Proxy(server.port) as proxy,
        await open_backend(proxy.url(stream)) as far,
        await open_backend(server.url(stream)) as near,
        LiveSettings(far.state) as cut,
        LiveSettings(near.state) as other,
    ):
        yield cut, other, proxy


async def test_what_was_set_before_is_there_from_the_start(backend: Backend) -> None:
    """A process that starts knows all settings before it does anything."""
    await LiveSettings(backend.state).set("plugin.chatty.base_url", "http://a")
    async with LiveSettings(backend.state) as live:
        assert live.get("plugin.chatty.base_url") == "http://a"
        assert live.get("plugin.chatty.api_key") is None


async def test_changes_reach_the_others_and_their_callbacks(valkey_server: Server, stream: str) -> None:
    """Set, changed and unset in one process: another one's mirror follows, and is told of each."""
    url = valkey_server.url(stream)
    async with (
        await open_backend(url) as here,
        await open_backend(url) as there,
        LiveSettings(here.state) as live,
        LiveSettings(there.state) as other,
    ):
        heard: list[tuple[str, str | None]] = []
        other.on_change(lambda key, value: heard.append((key, value)))
        await live.set("plugin.chatty.base_url", "http://a")
        assert live.get("plugin.chatty.base_url") == "http://a"
        await live.set("plugin.chatty.base_url", "http://b")
        await live.set("llm.default_provider", "chatty")
        assert await live.unset("plugin.chatty.base_url")
        await until(lambda: other.get("plugin.chatty.base_url") is None and len(heard) == 4, other)
        assert heard == [
            ("plugin.chatty.base_url", "http://a"),
            ("plugin.chatty.base_url", "http://b"),
            ("llm.default_provider", "chatty"),
            ("plugin.chatty.base_url", None),
        ]
        assert not await live.unset("plugin.chatty.base_url")


async def test_under_gives_whole_keys_in_order(backend: Backend) -> None:
    """Whoever reads a part of the settings gets that part alone."""
    async with LiveSettings(backend.state) as live:
        await live.set("plugin.chatty.retries", "3")
        await live.set("plugin.chatty.base_url", "http://a")
        await live.set("llm.default_provider", "chatty")
        assert list(live.under("plugin.chatty.").items()) == [
            ("plugin.chatty.base_url", "http://a"),
            ("plugin.chatty.retries", "3"),
        ]


async def test_an_outage_changes_nothing_and_is_caught_up_with(valkey_server: Server, stream: str) -> None:
    """While the store is away the last values stay; what was set, changed and unset meanwhile is seen afterwards."""
    async with behind(valkey_server, stream) as (cut, other, proxy):
        await other.set("plugin.chatty.base_url", "http://a")
        await other.set("plugin.chatty.retries", "3")
        await until(lambda: cut.get("plugin.chatty.retries") == "3", cut)
        await proxy.refuse()
        await other.set("plugin.chatty.base_url", "http://b")
        await other.unset("plugin.chatty.retries")
        await other.set("llm.default_provider", "chatty")
        assert cut.get("plugin.chatty.base_url") == "http://a"
        assert cut.get("plugin.chatty.retries") == "3"
        await proxy.accept()
        await until(lambda: cut.get("plugin.chatty.retries") is None, cut)
        await until(lambda: cut.get("plugin.chatty.base_url") == "http://b", cut)
        await until(lambda: cut.get("llm.default_provider") == "chatty", cut)


async def test_a_mirror_is_not_told_of_everything_else(valkey_server: Server, stream: str) -> None:
    """Heartbeats, limits and budgets change all the time: a worker that merely follows settings hears none of that."""
    url = valkey_server.url(stream)
    client = redis.asyncio.Redis(port=valkey_server.port)
    async with await open_backend(url) as backend, LiveSettings(backend.state):
        listened = await client.pubsub_channels(f"{stream}:state:changes*")
    await client.aclose()
    assert listened == [f"{stream}:state:changes:settings".encode()]


async def test_a_key_deleted_by_other_means_is_noticed(valkey_server: Server, stream: str) -> None:
    """Somebody who deletes a key in the store itself unsets it as well."""
    async with (
        behind(valkey_server, stream) as (live, other, _),
        await open_backend(valkey_server.url(stream)) as third,
    ):
        await other.set("plugin.chatty.retries", "3")
        await until(lambda: live.get("plugin.chatty.retries") == "3", live)
        await third.state.delete(PREFIX + "plugin.chatty.retries")
        await until(lambda: live.get("plugin.chatty.retries") is None, live)


async def test_a_key_deleted_while_it_was_not_looking_is_noticed_with_the_next_reading(backend: Backend) -> None:
    """Reading everything anew drops what is not there any more."""
    live = LiveSettings(backend.state)
    await live.set("plugin.chatty.retries", "3")
    await backend.state.delete(PREFIX + "plugin.chatty.retries")
    await live.load()
    assert live.get("plugin.chatty.retries") is None


class LateWatch:
    """A store whose watch begins late, and which lets the test act between the first reading and the watch."""

    def __init__(self, state: StateStore) -> None:
        self._state = state
        self.asked = asyncio.Event()
        self.may_begin = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    async def watch(self, prefix: str) -> AsyncIterator[StateChange]:
        """As the store's own, from when it may."""
        self.asked.set()
        await self.may_begin.wait()
        changes = self._state.watch(prefix)
        async for change in changes:
            yield change


async def test_nothing_falls_between_reading_and_watching(backend: Backend) -> None:
    """A change made after the mirror was entered, and before its watch has begun, is there when it has begun."""
    late = LateWatch(backend.state)

    async def enter() -> str | None:
        async with LiveSettings(late) as live:
            return live.get("plugin.chatty.retries")

    entering = asyncio.create_task(enter())
    async with asyncio.timeout(LIMIT_S):
        await late.asked.wait()
        await LiveSettings(backend.state).set("plugin.chatty.retries", "3")
        late.may_begin.set()
        assert await entering == "3"


async def test_a_watch_that_tells_nothing_is_given_up_for_another(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subscription that is lost without a word, as behind some proxies, keeps no worker from its settings."""

    class DeafAtFirst(LateWatch):
        times = 0

        async def watch(self, prefix: str) -> AsyncIterator[StateChange]:
            self.times += 1
            if self.times == 1:
                await asyncio.Event().wait()
            async for change in self._state.watch(prefix):
                yield change

    monkeypatch.setattr(following, "_HEARD_LIMIT_S", 0.05)
    await LiveSettings(backend.state).set("plugin.chatty.retries", "3")
    with capture_logs():
        async with asyncio.timeout(LIMIT_S), LiveSettings(DeafAtFirst(backend.state)) as live:
            assert live.get("plugin.chatty.retries") == "3"


async def test_a_watch_that_ends_is_begun_again(backend: Backend) -> None:
    """Whatever a store's watch does, the mirror comes back to it and reads what it missed."""

    class Breaking(LateWatch):
        times = 0

        async def watch(self, prefix: str) -> AsyncIterator[StateChange]:
            changes = self._state.watch(prefix)
            self.times += 1
            async for change in changes:
                yield change
                if change.key.endswith("retries") and self.times == 1:
                    raise RuntimeError("broken")

    breaking = Breaking(backend.state)
    with capture_logs():
        async with LiveSettings(breaking) as live:
            await LiveSettings(backend.state).set("plugin.chatty.retries", "3")
            await until(lambda: live.get("plugin.chatty.retries") == "3", live)
            await LiveSettings(backend.state).set("plugin.chatty.base_url", "http://b")
            await until(lambda: live.get("plugin.chatty.base_url") == "http://b", live)


async def test_a_callback_that_fails_disturbs_nobody(backend: Backend) -> None:
    """The other callbacks are told, and the mirror goes on."""
    heard: list[str] = []

    def fail(_key: str, _value: str | None) -> None:
        raise RuntimeError("no")

    with capture_logs() as logs:
        async with LiveSettings(backend.state) as live:
            live.on_change(fail)
            live.on_change(lambda key, _value: heard.append(key))
            await live.set("plugin.chatty.retries", "3")
    assert heard == ["plugin.chatty.retries"]
    assert any("was not taken" in line["event"] for line in logs)


# Secrets


async def test_secrets_are_sealed_at_rest_and_open_for_who_has_the_key(backend: Backend) -> None:
    """The store never holds the value; a process with the key reads it, one without it says why it cannot."""
    async with LiveSettings(backend.state, sealer=Sealer(KEY)) as live:
        await live.set("plugin.chatty.api_key", "sk-very-secret")
        await live.set("plugin.chatty.base_url", "http://a")
        assert live.get("plugin.chatty.api_key") == "sk-very-secret"
        stored = await backend.state.get(PREFIX + "plugin.chatty.api_key")
        assert stored is not None
        assert stored.decode().startswith(SEALED)
        assert b"secret" not in stored
        assert await backend.state.get(PREFIX + "plugin.chatty.base_url") == b"http://a"
        assert "secret" not in repr(live) + repr(live.sealer)
        with capture_logs():
            async with LiveSettings(backend.state, sealer=Sealer()) as blind:
                assert blind.get("plugin.chatty.api_key") is None
                assert "SHOAL_SECRET_KEY is not set" in blind.unreadable["plugin.chatty.api_key"]
                await live.set("plugin.chatty.api_key", "env:CHATTY_KEY")
                await until(lambda: blind.get("plugin.chatty.api_key") == "env:CHATTY_KEY", blind)
                assert not blind.unreadable


async def test_a_reference_is_stored_as_it_is(backend: Backend) -> None:
    """`env:NAME` names no secret: every process reads its own environment."""
    live = LiveSettings(backend.state, sealer=Sealer(KEY))
    await live.set("plugin.chatty.api_key", "env:CHATTY_KEY")
    assert await backend.state.get(PREFIX + "plugin.chatty.api_key") == b"env:CHATTY_KEY"


def test_keys_can_be_changed_one_after_the_other() -> None:
    """The first key seals, all of them open; a key that is gone opens nothing, and no value fits another name."""
    old, both, new = Sealer(KEY), Sealer(f"another key of ours, {KEY}"), Sealer("another key of ours")
    sealed = old.seal("plugin.chatty.api_key", "v")
    assert both.open("plugin.chatty.api_key", sealed) == "v"
    assert new.open("plugin.chatty.api_key", both.seal("plugin.chatty.api_key", "v")) == "v"
    for sealer, name in ((new, "plugin.chatty.api_key"), (old, "plugin.other.api_key")):
        with pytest.raises(BadSetting, match="another SHOAL_SECRET_KEY"):
            sealer.open(name, sealed)
    with pytest.raises(BadSetting, match="damaged"):
        old.open("plugin.chatty.api_key", SEALED + "%%%")
    assert old.seal("k", "v") != old.seal("k", "v")


def test_a_short_key_is_refused() -> None:
    """A key that could be guessed is no key; the error does not show it."""
    with pytest.raises(BadSetting, match="too short") as caught:
        Sealer("hunter2")
    assert "hunter2" not in str(caught.value)


# What may be set


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("plugin.chatty.colour", "red", "has no setting 'colour'; it has: base_url, api_key, retries, limits"),
        ("plugin.nobody.base_url", "x", "no provider 'nobody' is registered"),
        ("plugin.chatty.retries", "many", "plugin.chatty.retries: 'many' is no int"),
        ("plugin.chatty.limits", "{", "is no json"),
        ("plugin.chatty.base_url", "", "empty; unset it"),
        ("plugin.chatty.base_url", "x" * (MOST_BYTES + 1), f"at most {MOST_BYTES}"),
        ("plugin.chatty." + "k" * LONGEST_KEY, "x", "no setting's name"),
        ("Plugin chatty", "x", "no setting's name"),
        ("~hello", "x", "no setting's name"),
        ("llm.default_provider", "nobody", "no provider 'nobody' is registered; there are: "),
        ("colour.red", "x", "there is no setting 'colour.red'"),
    ],
)
async def test_what_cannot_be_is_refused(backend: Backend, key: str, value: str, complaint: str) -> None:
    """The error names the setting and what is allowed, and nothing is stored."""
    with pytest.raises(BadSetting) as caught:
        await LiveSettings(backend.state).set(key, value)
    assert complaint in str(caught.value)
    assert [key async for key, _ in backend.state.scan(PREFIX)] == []


async def test_the_error_about_a_secret_does_not_show_it(backend: Backend) -> None:
    """A value that does not fit may be a secret in the wrong place."""

    class Numbered(Configurable):
        name = "numbered"
        params = (ConfigParam(key="pin", type="int", secret=True),)

    providers.register("numbered", Numbered)  # type: ignore[arg-type]  # it need not speak
    with pytest.raises(BadSetting) as caught:
        await LiveSettings(backend.state).set("plugin.numbered.pin", "abcd")
    assert "abcd" not in str(caught.value)


async def test_other_parts_bring_their_own_rules(backend: Backend) -> None:
    """A registered prefix is checked by its own rule, sync or not, and may have secrets."""

    async def whole_number(_key: str, value: str) -> None:
        if not value.isdecimal():
            raise BadSetting(f"{value!r} is no whole number")

    register_key("testing.", whole_number, lambda key: key.endswith("pin"))
    live = LiveSettings(backend.state, sealer=Sealer(KEY))
    await live.set("testing.size", "3")
    await live.set("testing.pin", "4")
    with pytest.raises(BadSetting, match=r"testing\.size: 'x' is no whole number"):
        await live.set("testing.size", "x")
    assert (await backend.state.get(PREFIX + "testing.pin") or b"").startswith(SEALED.encode())
    assert msgspec.to_builtins(dict(live.under("testing."))) == {"testing.pin": "4", "testing.size": "3"}
