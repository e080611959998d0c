"""A whole gateway, from settings to a server that listens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from queue_backends import Backend
from worker.errors import BadSetting
from worker.gateway.app import build_app
from worker.gateway.assembly import open_gateway
from worker.gateway.context import Gateway
from worker.gateway.file_limit import allow_files
from worker.gateway.server import HttpServer, serving
from worker.settings import Settings

log = structlog.get_logger(__name__)


@asynccontextmanager
async def gateway_running(settings: Settings, backend: Backend) -> AsyncIterator[HttpServer]:
    """Serve the fleet over HTTP until the body ends; then end streams, and let running requests finish.

    Raises `BadSetting` for an address that cannot be used, or that others could reach without a key;
    `BackendUnavailable`.
    """
    allow_files(settings.gateway.max_streams)
    async with open_gateway(settings, backend) as gateway:
        check_exposure(gateway)
        async with serving(build_app(gateway), settings.gateway) as server:
            log.info("gateway listens", url=server.url, asks_for_keys=not server.is_open)
            yield server


def check_exposure(gateway: Gateway) -> None:
    """Refuse to serve others than this machine without asking for keys. Raises `BadSetting`."""
    settings = gateway.settings.gateway
    has_callers = gateway.keys.are_there or bool(settings.oidc_issuer)
    if settings.auth == "required" and not has_callers:
        log.warning("no key exists yet, so that nobody can call: create one with `shoal key create`")
    if settings.is_loopback or settings.auth == "required":
        return
    if settings.auth == "off":
        raise BadSetting(
            f"gateway.auth is off, and gateway.host {settings.host!r} can be reached by others: listen on 127.0.0.1, "
            "or remove SHOAL_AUTH"
        )
    if not has_callers:
        raise BadSetting(
            f"gateway.host {settings.host!r} can be reached by others, who would need no key: create one first "
            "(`shoal key create --scope admin`), set SHOAL_OIDC_ISSUER or SHOAL_AUTH=required, or listen on 127.0.0.1"
        )
