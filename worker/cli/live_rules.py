"""Rules that are live settings: how `shoal budgets` and `shoal limits` set one and take it away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from worker.cli.failures import NOT_FOUND, OK
from worker.cli.invocation import Invocation


class LiveRules(NamedTuple):
    """One kind of them."""

    noun: str
    """`budget`, in what is said."""
    prefix: str
    """Of their keys: `budgets.`."""
    listed_by: str
    """The command that shows them."""

    async def put(self, call: Invocation, name: str, rule: Mapping[str, object]) -> int:
        """Set a rule in all workers. Raises `BadSetting` if it cannot be."""
        import msgspec

        from worker.live_settings import LiveSettings

        async with call.fleet() as fleet:
            await LiveSettings(fleet.backend.state).set(self.prefix + name, msgspec.json.encode(rule).decode())
        return self._said(call, "set", name)

    async def drop(self, call: Invocation, name: str) -> int:
        """Take a live rule away."""
        from worker.live_settings import LiveSettings

        async with call.fleet() as fleet:
            was_there = await LiveSettings(fleet.backend.state).unset(self.prefix + name)
        if not was_there:
            call.screen.note(f"no live {self.noun} {name!r} is set (see: {self.listed_by})", "bad")
            return NOT_FOUND
        return self._said(call, "unset", name)

    def _said(self, call: Invocation, verb: str, name: str) -> int:
        if call.screen.as_json:
            call.screen.json({verb: name})
        else:
            call.screen.line(f"{self.noun} {name} is {verb}")
        return OK
