"""`shoal serve`: what others connect to. Plugins register here."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options

if TYPE_CHECKING:
    from queue_backends import Backend
    from worker.settings import Settings


@click.command(
    help="Serve the fleet's endpoints until stopped: providers and agents in other processes register here (gRPC), "
    "and every worker on the same queue can use them within a second.\n\n"
    + examples(
        "shoal serve",
        "shoal serve --queue redis://localhost:6379 --grpc-host 0.0.0.0",
        "SHOAL_PLUGINS_DIR=./plugins shoal serve",
    )
)
@click.option("--grpc-host", help="Address that plugins register at.  [env: SHOAL_GRPC_ADDR; default: 127.0.0.1]")
@click.option("--grpc-port", type=click.IntRange(0, 65_535), help="Its port; 0: any free one.  [default: 9090]")
@click.option("--plugins-dir", metavar="DIR", help="Start the plugins in these folders.  [env: SHOAL_PLUGINS_DIR]")
@click.option("--log-level", help="debug, info, warning, error.  [env: SHOAL_LOG_LEVEL; default: info]")
@click.option("--log-format", help="auto, console, json.  [env: SHOAL_LOG_FORMAT; default: auto]")
@shoal_options
def serve(call: Invocation, **options: Any) -> int:
    """Exit code 0 after SIGTERM or Ctrl-C."""
    from worker.log import configure_logging

    settings = call.settings(
        {
            "plugins.grpc_addr": _address(call, options["grpc_host"], options["grpc_port"]),
            "plugins.dir": options["plugins_dir"],
            "log_level": options["log_level"],
            "log_format": options["log_format"],
        }
    )
    configure_logging(settings.log_level, pretty={"console": True, "json": False}.get(settings.log_format))
    asyncio.run(_serve(settings))
    return OK


def _address(call: Invocation, host: str | None, port: int | None) -> str | None:
    """The flags' address; what they leave open is as configured."""
    if host is None and port is None:
        return None
    from providers.remote.addresses import Address, parse_listen

    usual_host, usual_port = parse_listen(call.settings().plugins.grpc_addr)
    host, port = host or usual_host, usual_port if port is None else port
    return Address(host, port).target


async def _serve(settings: Settings) -> None:
    from worker.assembly import open_backends

    backend = await open_backends(settings)
    async with backend, _services(settings, backend):
        await _until_told()


@asynccontextmanager
async def _services(settings: Settings, backend: Backend) -> AsyncIterator[None]:
    """All endpoints of this command."""
    from worker.engine import engine_running

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(engine_running(settings.plugins, backend.state))
        yield


async def _until_told() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, told.set)
    try:
        await told.wait()
    finally:
        for number in signals:
            with contextlib.suppress(ValueError):
                loop.remove_signal_handler(number)
