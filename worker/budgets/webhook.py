"""Tells somebody elsewhere that a budget has reached its soft limit, or its limit."""

from __future__ import annotations

import structlog

from providers import ProviderError
from providers.calls import shown
from providers.transport import Transport
from queue_backends.messages import encode_json
from worker.budgets.warning import BudgetWarning

_TIMEOUT_S = 10.0

_log = structlog.get_logger(__name__)


class BudgetWebhook:
    """Posts each warning as JSON. One that cannot be delivered is named in the log, and not sent again."""

    def __init__(self, http: Transport, url: str) -> None:
        self._http = http
        self._url = url

    async def __call__(self, warning: BudgetWarning) -> None:
        """Send one warning."""
        headers = {"content-type": "application/json"}
        try:
            answer = await self._http.request(
                "POST", self._url, headers=headers, content=encode_json(warning), timeout_s=_TIMEOUT_S
            )
        except ProviderError as error:
            _log.warning("a budget's warning was not delivered", url=shown(self._url), error=str(error))
            return
        if answer.status >= 300:
            _log.warning("a budget's warning was not taken", url=shown(self._url), status=answer.status)
