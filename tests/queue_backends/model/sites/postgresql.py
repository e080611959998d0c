"""On a PostgreSQL: time passes by UPDATE."""

from __future__ import annotations

from queue_backends import Backend, BackendOptions, open_backend
from queue_backends.interfaces import Delivery
from queue_backends.postgresql.pulling import Outlook
from queue_backends.postgresql.queue import PostgresqlQueue
from tests.postgresql_servers import PostgresqlServer
from tests.servers import fresh_stream


class PostgresqlSite:
    """A queue of its own in a server's database."""

    def __init__(self, server: PostgresqlServer) -> None:
        self._url = server.url(fresh_stream())
        self._connection = server.connect()

    async def open(self, options: BackendOptions) -> Backend:
        """Another pool of connections."""
        return await open_backend(self._url, options)

    async def end_lease(self, delivery: Delivery) -> None:
        """Its moment of expiry is over."""
        past = "clock_timestamp() - interval '1 h'"
        self._connection.execute(
            f"UPDATE shoal.tasks SET lease_until = {past}, look_at = {past} WHERE id = %s AND token = %s",
            (delivery.entry_id.partition("/")[0], delivery.token),
        )

    async def end_delay(self, task_id: str) -> None:
        """It was due long ago."""
        self._connection.execute(
            "UPDATE shoal.tasks SET due_at = clock_timestamp() - interval '1 h' WHERE id = %s AND state = 2", (task_id,)
        )

    def look_around(self, backend: Backend) -> None:
        """As if the last look had seen that something is due and some lease has run out."""
        assert isinstance(backend.queue, PostgresqlQueue)
        puller = backend.queue._puller
        puller._outlook = Outlook(is_paused=False, due_in_s=0.0, look_in_s=0.0)
        puller._connections.availability._silence_ended_at = float("-inf")

    async def close(self) -> None:
        """Close the connection."""
        self._connection.close()
