"""What all health checks have in common: how long they may take, and that a failure is an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from providers.calls import Limits
from providers.errors import ProviderError
from providers.interfaces import Health


def health_limits(limit_s: float) -> Limits:
    """The limits of a call that is made once, and answered within `limit_s` or not at all."""
    return Limits(connect_timeout_s=limit_s, first_event_timeout_s=limit_s, idle_timeout_s=limit_s, max_retries=0)


async def checked(ask: Callable[[], Awaitable[Mapping[str, str]]], limit_s: float) -> Health:
    """Healthy, with the details that `ask` returns, if it does so within `limit_s`; if not, the reason."""
    try:
        async with asyncio.timeout(limit_s):
            details = await ask()
    except ProviderError as error:
        return Health(healthy=False, message=str(error))
    except TimeoutError:
        return Health(healthy=False, message=f"no answer within {limit_s:g} s")
    return Health(healthy=True, details=dict(details))
