"""Lists of runs for many watchers: the feed tells of changes, and those who ask again because of one share a look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from queue_backends import open_backend
from tests.servers import Server, fresh_stream
from tests.teams.runs.test_driving import team
from worker.gateway.run_changes import RunChanges
from worker.teams.plan import Step
from worker.teams.run_state import Phase
from worker.teams.runs import Runs

if TYPE_CHECKING:
    from worker.teams.run_header import RunSummary

PLAN = team(Step(name="a", role="a"))
WITHIN_S = 30


class CountedRuns(Runs):
    """Runs that count how often they are listed."""

    listed = 0

    async def list(self, **wanted: Any) -> list[RunSummary]:
        """As ever; slow enough for others to come meanwhile."""
        self.listed += 1
        found = await super().list(**wanted)
        await asyncio.sleep(0)
        return found


@pytest.fixture(params=["memory", "valkey"])
async def runs(request: pytest.FixtureRequest) -> AsyncIterator[CountedRuns]:
    """Of a state store of their own."""
    url = "memory://"
    if request.param == "valkey":
        server: Server = request.getfixturevalue("valkey_server")
        url = server.url(fresh_stream())
    async with await open_backend(url) as opened:
        yield CountedRuns(opened.state)


async def changed(changes: RunChanges, runs: Runs, tenant: str, watcher: str) -> int:
    """The version that a watcher is told once a tenant's run has begun."""
    before, number = changes.tell(watcher), 0
    async with asyncio.timeout(WITHIN_S):
        while (version := changes.tell(watcher)) == before:  # the watch may not have begun yet
            await runs.start(PLAN, {}, run_id=f"r{tenant}-{watcher}-{before}-{number}", tenant=tenant)
            number += 1
            await asyncio.sleep(0.02)
    return version


async def listed(changes: RunChanges, version: int, tenant: str | None = None) -> list[str]:
    """The ids that a list shows."""
    found = await changes.list(version, limit=1000, team="", tenant=tenant, phases=[Phase.PENDING])
    return [each.id for each in found]


async def test_those_who_heard_of_a_change_share_one_look(runs: CountedRuns) -> None:
    """However many they are; another list, or another version, is looked up anew."""
    async with RunChanges(runs) as changes:
        await changed(changes, runs, "acme", "")
        await heard(changes, runs, "last")
        version = changes.tell("")
        found = await asyncio.gather(*(listed(changes, version) for _ in range(50)))
        assert runs.listed == 1
        assert len({tuple(each) for each in found}) == 1
        assert found[0]
        assert await listed(changes, version, "acme") == found[0][1:]
        assert runs.listed == 2
        version = await changed(changes, runs, "acme", "")
        assert len(await listed(changes, version)) > len(found[0])
        assert runs.listed == 3


async def test_who_asks_without_a_version_of_ours_sees_what_he_has_just_begun(runs: CountedRuns) -> None:
    """Nothing is shared with him, nor with one who heard of a version from another gateway."""
    async with RunChanges(runs) as changes:
        await changed(changes, runs, "", "")
        await heard(changes, runs, "last")
        version = changes.tell("")
        before = await listed(changes, version)
        await runs.start(PLAN, {}, run_id="mine")
        assert await listed(changes, version) == before
        assert "mine" in await listed(changes, 0)
        assert "mine" in await listed(changes, version + 1000)


async def test_tenants_hear_of_their_own_runs_alone(runs: CountedRuns) -> None:
    """That another one is busy is none of their business."""
    async with RunChanges(runs) as changes:
        await changed(changes, runs, "globex", "globex")
        await heard(changes, runs, "last")
        acme = changes.tell("acme")
        await changed(changes, runs, "globex", "globex")
        assert changes.tell("acme") == acme
        assert await changed(changes, runs, "acme", "acme") > acme


async def test_one_who_leaves_takes_nothing_from_the_others(runs: CountedRuns) -> None:
    """The look of a watcher whose connection ends is done again by the next one."""
    async with RunChanges(runs) as changes:
        version = await changed(changes, runs, "", "")
        first = asyncio.create_task(listed(changes, version))
        others = [asyncio.create_task(listed(changes, version)) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        assert all(await asyncio.gather(*others))


async def test_a_run_within_a_run_changes_no_list(runs: CountedRuns) -> None:
    """Lists show only what nobody's step has begun."""
    async with RunChanges(runs) as changes:
        await changed(changes, runs, "", "")
        await heard(changes, runs, "first")
        version = changes.tell("")
        await runs.start(PLAN, {}, run_id="inner", parent=("outer", "step"))
        await heard(changes, runs, "second")
        assert changes.tell("") == version + 1


async def heard(changes: RunChanges, runs: Runs, tenant: str) -> None:
    """Begin a run of a new tenant, and return when that, and so all before, has been heard of."""
    before = changes.tell(tenant)
    await runs.start(PLAN, {}, run_id=f"of-{tenant}", tenant=tenant)
    async with asyncio.timeout(WITHIN_S):
        while changes.tell(tenant) == before:
            await asyncio.sleep(0.01)
