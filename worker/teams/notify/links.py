"""Where in the dashboard one sees what a notification tells of, for those gateways that know their own address."""

from __future__ import annotations

from urllib.parse import quote

from worker.teams.notify.model import OF_BUDGETS, NotifyEvent
from worker.teams.notify.payload import NotifyPayload


class Links:
    """Links below one address, such as `https://shoal.example.com`. Without an address there are none."""

    def __init__(self, public_url: str) -> None:
        self._dashboard = f"{public_url.rstrip('/')}/dashboard" if public_url else ""

    def of(self, payload: NotifyPayload) -> str:
        """The page to look at; empty if it is not known where that is."""
        return f"{self._dashboard}#/{_view(payload)}" if self._dashboard else ""


NO_LINKS = Links("")


def _view(payload: NotifyPayload) -> str:
    if payload.run_name:
        return f"runs/{quote(payload.run_name, safe='')}"
    if payload.event in OF_BUDGETS:
        return "budgets"
    return "providers" if payload.event is NotifyEvent.AGENT_DEGRADED else f"teams/{quote(payload.team, safe='')}"
