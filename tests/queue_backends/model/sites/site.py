"""How time is made to pass where a modelled queue stands: a lease or a delay ends when a test says so."""

from __future__ import annotations

from typing import Protocol

from queue_backends import Backend, BackendOptions
from queue_backends.interfaces import Delivery


class Site(Protocol):
    """One queue's storage."""

    async def open(self, options: BackendOptions) -> Backend:
        """Open it once more, as another process would."""
        ...

    async def end_lease(self, delivery: Delivery) -> None:
        """From now on the delivery's lease has run out."""
        ...

    async def end_delay(self, task_id: str) -> None:
        """From now on the delayed task is due."""
        ...

    def look_around(self, backend: Backend) -> None:
        """Make the backend's next pull look for leases that have run out."""
        ...

    async def close(self) -> None:
        """Give up what the site itself holds."""
        ...
