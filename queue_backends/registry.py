"""From a URL to a backend: by its scheme, among what was registered here and what installed packages offer."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Awaitable, Callable

from queue_backends.errors import BackendMisconfigured, UnknownBackend
from queue_backends.interfaces import Backend, BackendOptions

ENTRY_POINTS = "shoal.queue_backends"
DEFAULT_URL = "embedded://"

BackendFactory = Callable[[str, BackendOptions], Awaitable[Backend]]
"""Takes the URL and the options; returns a backend that is connected and checked."""

_registered: dict[str, BackendFactory] = {}


def register_backend(scheme: str, factory: BackendFactory) -> None:
    """Make `scheme://` URLs open with `factory`. The last registration of a scheme wins."""
    _registered[scheme] = factory


def available_backends() -> list[str]:
    """All schemes that can be opened, sorted."""
    return sorted({*_registered, *(point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS))})


async def open_backend(url: str = "", options: BackendOptions | None = None) -> Backend:
    """Connect to the backend of `url` (empty: the embedded one) and check that it can be used.

    A bare `host:port` means Redis, as ark has it. Raises `UnknownBackend`, `BackendMisconfigured` or
    `BackendUnavailable`.
    """
    url = url or DEFAULT_URL
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "redis", url
        url = f"redis://{rest}"
    return await load_factory(scheme)(url, options or BackendOptions())


def load_factory(scheme: str) -> BackendFactory:
    """What opens URLs of this scheme. Raises `UnknownBackend`, or `BackendMisconfigured` if it cannot be imported."""
    if factory := _registered.get(scheme):
        return factory
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=scheme):
        try:
            loaded: BackendFactory = point.load()
        except ImportError as error:
            raise BackendMisconfigured(
                f"queue backend {scheme!r} cannot be loaded: {error}: install its extra, such as shoal[{scheme}]"
            ) from error
        return loaded
    raise UnknownBackend(f"unknown task queue backend {scheme!r}; available: {', '.join(available_backends())}")
