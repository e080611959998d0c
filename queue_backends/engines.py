"""Which engines there are, whether they can be used here, and what each lacks: known without opening any of them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from types import ModuleType

from msgspec import Struct, structs

from queue_backends.capabilities import Capability
from queue_backends.errors import QueueError
from queue_backends.interfaces import Backend
from queue_backends.registry import available_backends, load_factory


class Engine(Struct, frozen=True, kw_only=True):
    """One engine, and all URL schemes that lead to it."""

    name: str
    """The scheme that is written most often."""
    schemes: tuple[str, ...]
    package: str = ""
    """Where its backend class is. Empty for those of other packages: where their factory is."""
    driver: str = ""
    """The module that must be importable; empty if nothing is needed."""
    extra: str = ""
    """What brings it: `pip install "shoal[extra]"`."""

    @property
    def missing(self) -> str:
        """What keeps it from being used here; empty if nothing does."""
        if self.driver and importlib.util.find_spec(self.driver) is None:
            return f'pip install "shoal[{self.extra}]"'
        if self.name == "embedded":
            from queue_backends.embedded.binary import find_server

            return _complaint_of(find_server)
        return "" if self.package else _complaint_of(lambda: load_factory(self.name))

    @property
    def gaps(self) -> Mapping[Capability, str] | None:
        """What it always lacks. One that is opened may lack more, by its own server's set-up. None: it cannot be told
        without a driver that is not installed."""
        found = _module(f"{self.package}.gaps") if self.package else None
        if found is not None:
            gaps: Mapping[Capability, str] = found.GAPS
            return gaps
        backend = _backend_class(self)
        return None if backend is None else backend.gaps

    @property
    def gaps_of_partitions(self) -> Mapping[Capability, str]:
        """What it lacks beside, once a queue is spread over several partitions."""
        places = (_module(f"{self.package}.{name}") for name in ("gaps", "backend")) if self.package else ()
        return next((found for place in places if (found := getattr(place, "GAPS_OF_PARTITIONS", None))), {})


OURS = (
    Engine(name="memory", schemes=("memory",), package="queue_backends.memory"),
    Engine(name="embedded", schemes=("embedded",), package="queue_backends.embedded", extra="embedded"),
    Engine(name="redis", schemes=("redis", "rediss", "unix"), package="queue_backends.redis"),
    Engine(
        name="redis+sentinel", schemes=("redis+sentinel", "rediss+sentinel"), package="queue_backends.redis.sentinel"
    ),
    Engine(name="redis+cluster", schemes=("redis+cluster", "rediss+cluster"), package="queue_backends.redis_cluster"),
    Engine(name="nats", schemes=("nats", "nats+tls"), package="queue_backends.nats", driver="nats", extra="nats"),
    Engine(
        name="postgresql",
        schemes=("postgresql", "postgres"),
        package="queue_backends.postgresql",
        driver="psycopg",
        extra="postgresql",
    ),
    Engine(name="grpc", schemes=("grpc",), package="queue_backends.swarm_plugin", driver="grpc", extra="grpc"),
    Engine(
        name="arq+redis",
        schemes=("arq+redis", "arq+rediss", "arq+unix"),
        package="queue_backends.arq",
        driver="arq",
        extra="arq",
    ),
)
"""Those that come with this package, the nearest first."""


def engines() -> list[Engine]:
    """Ours, as far as they are registered, then those of other packages."""
    available = set(available_backends())
    found = []
    for engine in OURS:
        if schemes := tuple(scheme for scheme in engine.schemes if scheme in available):
            found.append(structs.replace(engine, schemes=schemes))
            available.difference_update(schemes)
    return found + [Engine(name=scheme, schemes=(scheme,)) for scheme in sorted(available)]


def _complaint_of(attempt: Callable[[], object]) -> str:
    """Why a thing that must succeed does not; empty if it does."""
    try:
        attempt()
    except QueueError as error:
        return str(error)
    return ""


def _backend_class(engine: Engine) -> type[Backend] | None:
    """The class of its package's backend, or of the module that its factory is in."""
    names = [f"{engine.package}.backend", engine.package] if engine.package else [load_factory(engine.name).__module__]
    for module in filter(None, map(_module, names)):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Backend) and value.__module__.startswith(names[-1]):
                return value
    return None


def _module(name: str) -> ModuleType | None:
    """A module, or None if it, or a driver that it needs, is not there."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None
