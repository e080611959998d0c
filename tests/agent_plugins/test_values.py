"""Values of plugins that outlive their messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from queue_backends import Backend
from tests.agent_plugins.asking import answered
from tests.agent_plugins.conftest import PluginFleet
from tests.agent_plugins.plugin_folders import write_plugin
from worker.agent_plugins.errors import PluginMisuse
from worker.agent_plugins.key_values import MOST_VALUE_BYTES, StoredValues


async def test_values_of_plugins_and_tenants_are_apart(backend: Backend) -> None:
    """Given two plugins and tenants whose names could be mistaken for parts of a key, then each sees its own alone."""
    places = [("p", ""), ("p", "a"), ("p", "a/b"), ("q", "a")]
    stores = [StoredValues(backend.state, plugin, tenant) for plugin, tenant in places]
    for number, store in enumerate(stores):
        assert await store.set("b/key", str(number))
        assert not await store.set("b/key", str(number))
    assert [await store.get("b/key") for store in stores] == [b"0", b"1", b"2", b"3"]
    assert [await store.list() for store in stores] == [["b/key"]] * 4
    assert await stores[1].delete("b/key")
    assert not await stores[1].delete("b/key")
    assert [await store.get("b/key") for store in stores] == [b"0", None, b"2", b"3"]


async def test_a_value_with_a_lifetime_is_stored_with_it(backend: Backend) -> None:
    """An expiry reaches the store, where the value then disappears by itself."""
    given: list[float | None] = []

    class State:
        async def get(self, key: str) -> None:
            return None

        async def set(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
            given.append(ttl_s)

    await StoredValues(State(), "p", "").set("k", b"v", expires_in_s=60)  # type: ignore[arg-type]  # all that is used
    assert given == [60]


@pytest.mark.parametrize(
    ("key", "value", "lifetime_s", "said"),
    [
        ("", b"v", None, "the key is ''"),
        ("k" * 256, b"v", None, "the key has 256 characters, at most 255 are allowed"),
        ("a\nb", b"v", None, "control characters"),
        ("k", 7, None, "the value is int: use bytes or text"),
        ("k", b"x" * (MOST_VALUE_BYTES + 1), None, "at most 1048576 are allowed"),
        ("k", b"v", 0.0, "expires_in_s is 0.0"),
    ],
)
async def test_what_is_refused(backend: Backend, key: str, value: object, lifetime_s: float | None, said: str) -> None:
    """Keys, values and lifetimes that do not fit are refused with what is allowed."""
    with pytest.raises(PluginMisuse, match=said):
        await StoredValues(backend.state, "p", "").set(key, value, expires_in_s=lifetime_s)  # type: ignore[arg-type]  # on purpose


async def test_a_plugin_keeps_values_between_messages(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given a counter, when two messages come, then the second sees the first's; another tenant begins anew; and what
    `initialize` writes is the agent's own."""
    write_plugin(
        plugins_dir,
        """
        async def initialize(self, config, services):
            await super().initialize(config, services)
            await services.kv.set("started", "yes")

        async def handle_message(self, request, stream):
            kv = self.services.kv
            count = int(await kv.get("count") or b"0") + 1
            await kv.set("count", str(count))
            await stream.content(f"{count} {await kv.list()}")
        """,
    )
    async with plugin_fleet() as fleet:
        said = [(await answered(fleet, tenant=tenant))[0].output for tenant in ("", "", "acme")]
    assert said == ["1 ['count', 'started']", "2 ['count', 'started']", "1 ['count']"]


async def test_services_outside_of_a_message(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given a plugin that calls a model in `initialize`, then it is told where that belongs."""
    write_plugin(
        plugins_dir,
        """
        async def initialize(self, config, services):
            await super().initialize(config, services)
            await services.call_llm("hello")
        """,
    )
    async with plugin_fleet(settings={"max_retries": 0}) as fleet:
        result, _ = await answered(fleet)
    assert "call_llm belongs to a message: call it in handle_message" in result.error
