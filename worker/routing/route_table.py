"""The routes that there are: those of `shoal.yaml`, and those that live settings add or change."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import structlog

from worker.errors import BadSetting
from worker.live_settings import LiveSettings
from worker.routing.errors import RouteNotFound
from worker.routing.route import Route, read_route

PREFIX = "routes."

log = structlog.get_logger(__name__)


class RouteTable:
    """Routes by name. A live one counts more than one of the file; when it is unset, the file's counts again."""

    def __init__(self, declared: Mapping[str, Route], live: LiveSettings | None = None) -> None:
        self._declared = dict(declared)
        self._live = live
        self._read: dict[str, tuple[str, Route]] = {}
        """Name -> a live route's text, and what it says."""
        self._unfit: dict[str, str] = {}
        """Name -> a live route's text that says nothing, and was complained of."""

    def get(self, name: str) -> Route:
        """The route as it is now. Raises `RouteNotFound`, which names all there are."""
        text = self._live.get(PREFIX + name) if self._live is not None else None
        route = self._declared.get(name) if text is None else self._from_live(name, text)
        if route is None:
            known = ", ".join(self.names()) or "none: declare it under routes: in shoal.yaml, or set it live"
            raise RouteNotFound(f"there is no route {name!r}; there are: {known}")
        return route

    def names(self) -> list[str]:
        """The names of all routes, sorted."""
        live = self._live.under(PREFIX) if self._live is not None else {}
        return sorted({*self._declared, *(key.removeprefix(PREFIX) for key in live)})

    def _from_live(self, name: str, text: str) -> Route | None:
        """What the text says; if it says nothing, what it said last, or the file says."""
        known = self._read.get(name)
        if known is not None and known[0] == text:
            return known[1]
        try:
            route = read_live(name, text)
        except BadSetting as error:
            if self._unfit.get(name) != text:
                self._unfit[name] = text
                log.warning("a live route cannot be used, it stays as it was", route=name, error=str(error))
            return known[1] if known is not None else self._declared.get(name)
        self._read[name] = (text, route)
        return route


def read_live(name: str, text: str) -> Route:
    """A route from a live setting's JSON. Raises `BadSetting`."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise BadSetting(f"{PREFIX}{name} is no JSON: {error}") from error
    return read_route(name, value)


def check_live(key: str, text: str) -> None:
    """Raise `BadSetting` unless `text` can be the value of the live setting `key` (`routes.<name>`)."""
    read_live(key.removeprefix(PREFIX), text)
