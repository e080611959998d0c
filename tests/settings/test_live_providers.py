"""Providers of a worker under changing settings: later runs get the new ones, earlier runs keep theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

import providers
from providers import AgentConfig, CallTool, ChunkFn, ConfigParam, InvalidRequest, ProviderError, ToolSpec
from providers.live_config import Configurable
from queue_backends import Backend, Task, TokenUsage, open_backend
from worker import providers_in_use
from worker.assembly import open_worker
from worker.client import Fleet
from worker.live_settings import LiveSettings
from worker.providers_in_use import ProvidersInUse
from worker.settings import load_settings

LIMIT_S = 30.0
URL = "plugin.noted.base_url"
AGENT = AgentConfig(model="any", provider="noted")


class Noted(Configurable):
    """A provider that answers with its address, and lets the test hold a run up and see which instances are closed."""

    name = "noted"
    params = (ConfigParam(key="base_url"), ConfigParam(key="picky"))

    def __init__(self) -> None:
        self.is_closed = False

    async def run_task(
        self, config: AgentConfig, task: Task, tools: Sequence[ToolSpec], call_tool: CallTool, chunk_fn: ChunkFn
    ) -> tuple[str, TokenUsage]:
        """The address at the run's end."""
        if self not in ran:
            ran.append(self)
        if task.prompt == "wait":
            started.set()
            await go_on.wait()
        assert not self.is_closed
        return self.value("base_url") or "none", TokenUsage(input_tokens=1, output_tokens=1)

    async def config_updated(self, values: Mapping[str, str]) -> None:
        """Refuses one value."""
        if values.get("picky") == "no":
            raise InvalidRequest("picky says no")
        await super().config_updated(values)

    async def aclose(self) -> None:
        """Once."""
        assert not self.is_closed
        self.is_closed = True
        closed.set()


ran: list[Noted] = []
"""Instances that ran something, in order."""
started, go_on, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    global started, go_on, closed
    ran.clear()
    started, go_on, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
    providers.register("noted", Noted)


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A queue and store of the test's own."""
    async with await open_backend("memory://") as opened:
        yield opened


@pytest.fixture
async def live(backend: Backend) -> AsyncIterator[LiveSettings]:
    """The live settings."""
    async with LiveSettings(backend.state) as settings:
        yield settings


@asynccontextmanager
async def in_use(live: LiveSettings, **options: Any) -> AsyncIterator[ProvidersInUse]:
    """The providers of one worker, closed in the end."""
    used = ProvidersInUse(live, **options)
    try:
        yield used
    finally:
        await used.close()


async def leased(used: ProvidersInUse) -> Noted:
    """The instance that a run would get now; given back at once."""
    async with used.lease(AGENT) as instance:
        assert isinstance(instance, Noted)
        return instance


async def test_a_run_in_flight_keeps_its_settings_and_later_ones_get_the_new(backend: Backend) -> None:
    """A whole worker: the change is seen without a restart, and the old instance is closed with its last run."""
    settings = load_settings({}, file=None, overrides={"agent.model": "any", "agent.provider": "noted"})
    async with asyncio.timeout(LIMIT_S), LiveSettings(backend.state) as live:
        await live.set(URL, "http://a")
        async with open_worker(settings, backend):
            fleet = Fleet(backend)
            early = await fleet.submit("wait")
            await started.wait()
            await live.set(URL, "http://b")
            while (await (await fleet.submit("go")).result()).output != "http://b":  # the worker hears of it by itself
                await asyncio.sleep(0.01)
            assert [instance.is_closed for instance in ran] == [False, False]
            go_on.set()
            assert (await early.result()).output == "http://a"
            await closed.wait()
            assert [instance.is_closed for instance in ran] == [True, False]
    assert [instance.is_closed for instance in ran] == [True, True]


async def test_an_instance_that_was_made_meanwhile_is_closed_too(live: LiveSettings) -> None:
    """Somebody who did not wait for the settings got one of its own, which is not left open."""
    made: list[Noted] = []

    class Hasty(Noted):
        """While it takes its settings, somebody else asks for the provider."""

        async def config_updated(self, values: Mapping[str, str]) -> None:
            await super().config_updated(values)
            hasty = used.take(AGENT)
            assert isinstance(hasty, Noted)
            made.append(hasty)
            used.give_back(hasty)

    providers.register("noted", Hasty)
    await live.set(URL, "http://a")
    async with in_use(live) as used:
        settled = await leased(used)
        assert settled.value("base_url") == "http://a"
    assert [instance.is_closed for instance in made] == [True]
    assert settled.is_closed


async def test_a_provider_that_does_not_close_keeps_nobody_waiting(
    live: LiveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker ends all the same, and says which one it was."""
    monkeypatch.setattr(providers_in_use, "CLOSE_LIMIT_S", 0.01)

    class Stuck(Noted):
        async def aclose(self) -> None:
            await asyncio.Event().wait()

    providers.register("noted", Stuck)
    with capture_logs() as logs:
        async with asyncio.timeout(LIMIT_S), in_use(live) as used:
            await leased(used)
    assert [(line["event"], line["provider"]) for line in logs] == [("a provider did not close in time", "noted")]


async def test_without_a_change_all_runs_share_one_instance(live: LiveSettings) -> None:
    """Nothing is made anew without a reason, and what nobody changed needs no settling."""
    async with in_use(live) as used:
        one, two = await leased(used), await leased(used)
        assert one is two
        assert not used.unsettled
        assert not one.is_closed
    assert one.is_closed


async def test_many_runs_that_begin_at_once_make_one_instance(live: LiveSettings) -> None:
    """The first of them makes it, the others wait for it."""
    await live.set(URL, "http://a")
    async with in_use(live) as used:
        instances = await asyncio.gather(*(leased(used) for _ in range(50)))
        assert len({id(instance) for instance in instances}) == 1
        assert instances[0].value("base_url") == "http://a"


async def test_a_change_back_to_the_same_values_makes_nothing(live: LiveSettings) -> None:
    """What the present instance has already is no change."""
    await live.set(URL, "http://a")
    async with in_use(live) as used:
        before = await leased(used)
        await live.set(URL, "http://b")
        await live.set(URL, "http://a")
        assert await leased(used) is before


async def test_unset_takes_the_value_away(live: LiveSettings) -> None:
    """Runs that begin afterwards have what they had without it."""
    await live.set(URL, "http://a")
    async with in_use(live) as used:
        assert (await leased(used)).value("base_url") == "http://a"
        await live.unset(URL)
        assert (await leased(used)).value("base_url") == ""


async def test_settings_that_a_provider_refuses_leave_the_old_ones_in_force(live: LiveSettings) -> None:
    """A bad value costs no run; a provider that had none before fails its run with the reason."""
    await live.set(URL, "http://a")
    async with in_use(live) as used:
        before = await leased(used)
        await live.set("plugin.noted.picky", "no")
        with capture_logs() as logs:
            assert await leased(used) is before
        assert any("goes on with the old ones" in line["event"] for line in logs)
        assert not before.is_closed
    async with in_use(live) as fresh:
        with pytest.raises(ProviderError, match="picky says no"):
            await leased(fresh)


async def test_a_setting_that_the_provider_no_longer_knows_is_left_out(live: LiveSettings, backend: Backend) -> None:
    """After an upgrade a stored value may have no place any more: a warning, not a failure."""
    await live.set(URL, "http://a")
    await backend.state.set("settings:plugin.noted.gone", b"1")
    with capture_logs() as logs:
        async with in_use(live) as used:
            await live.load()
            assert (await leased(used)).value("base_url") == "http://a"
    assert any(line.get("settings") == ["gone"] for line in logs)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (AgentConfig(model="any", provider="scripted"), "scripted"),
        (AgentConfig(model="claude-sonnet-4-5"), "anthropic"),
        (AgentConfig(model="qwen3"), "noted"),
        (AgentConfig(model=""), "noted"),
    ],
)
async def test_the_default_provider_serves_whom_nothing_else_decides(
    live: LiveSettings, config: AgentConfig, name: str
) -> None:
    """The agent's provider counts first, then its model's name, then the setting, which may change at any time."""
    async with in_use(live) as used:
        await live.set("llm.default_provider", "noted")
        assert used.name_of(config) == name
        await live.unset("llm.default_provider")
        assert used.name_of(AgentConfig(model="qwen3")) == "openai"


async def test_one_provider_everywhere(live: LiveSettings) -> None:
    """A worker that was given one provider for all uses it for all."""
    async with in_use(live, everywhere="noted") as used, used.lease(AgentConfig(model="claude-x")) as instance:
        assert isinstance(instance, Noted)


async def test_a_provider_that_cannot_be_closed_is_only_logged(live: LiveSettings) -> None:
    """It is anybody's code."""

    class Sticky(Noted):
        async def aclose(self) -> None:
            raise RuntimeError("stuck")

    providers.register("noted", Sticky)
    with capture_logs() as logs:
        async with in_use(live) as used, used.lease(AGENT):
            pass
    assert any("could not be closed" in line["event"] for line in logs)
