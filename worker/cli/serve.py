"""`shoal serve`: what others connect to. People, browsers and other programs over HTTP, plugins over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.errors import BadSetting
from worker.event_loop import loop_factory

if TYPE_CHECKING:
    from queue_backends import Backend
    from worker.gateway.server import HttpServer
    from worker.settings import Settings

_HTTP_PACKAGES = ("starlette", "uvicorn", "jwt")


@click.command(
    help="Serve the fleet's endpoints until stopped: the HTTP API with its pages, and gRPC, where providers and agents "
    "in other processes register. Every worker on the same queue takes part. SIGTERM or Ctrl-C: streams end, running "
    "requests finish within the grace period.\n\n"
    + examples(
        "shoal serve",
        "shoal key create ops --scope admin && shoal serve --host 0.0.0.0",
        "shoal serve --queue redis://localhost:6379 --grpc-host 0.0.0.0",
        "SHOAL_PLUGINS_DIR=./plugins shoal serve --no-http",
    )
)
@click.option("--host", help="Address of the HTTP API; others need keys.  [env: SHOAL_HTTP_HOST; default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65_535), help="Its port; 0: any.  [env: SHOAL_HTTP_PORT; default: 8000]")
@click.option(
    "--no-http",
    is_flag=True,
    help="Take in plugins alone: it fires no triggers, goes on with no runs of teams, and delivers no callbacks and "
    "notifications.",
)
@click.option("--grpc-host", help="Address that plugins register at.  [env: SHOAL_GRPC_ADDR; default: 127.0.0.1]")
@click.option("--grpc-port", type=click.IntRange(0, 65_535), help="Its port; 0: any free one.  [default: 9090]")
@click.option("--no-grpc", is_flag=True, help="Take in no plugins.")
@click.option("--plugins-dir", metavar="DIR", help="Start the plugins in these folders.  [env: SHOAL_PLUGINS_DIR]")
@click.option("--log-level", help="debug, info, warning, error.  [env: SHOAL_LOG_LEVEL; default: info]")
@click.option("--log-format", help="auto, console, json.  [env: SHOAL_LOG_FORMAT; default: auto]")
@shoal_options
def serve(call: Invocation, **options: Any) -> int:
    """Exit code 0 after SIGTERM or Ctrl-C."""
    from worker.log import configure_logging

    parts = _Parts(http=not options["no_http"], grpc=not options["no_grpc"])
    if not any(parts):
        raise click.UsageError("--no-http and --no-grpc leave nothing to serve: drop one of them")
    settings = call.settings(
        {
            "gateway.host": options["host"],
            "gateway.port": options["port"],
            "plugins.grpc_addr": _address(call, options["grpc_host"], options["grpc_port"]),
            "plugins.dir": options["plugins_dir"],
            "log_level": options["log_level"],
            "log_format": options["log_format"],
        }
    )
    if parts.http:
        _check_packages()
    configure_logging(settings.log_level, pretty={"console": True, "json": False}.get(settings.log_format))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(call, settings, parts))
    return OK


class _Parts(NamedTuple):
    """What is served."""

    http: bool
    grpc: bool


def _check_packages() -> None:
    missing = [name for name in _HTTP_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise BadSetting(
            f"the HTTP API needs {', '.join(missing)}: pip install 'shoal[gateway]', or serve plugins alone (--no-http)"
        )


def _address(call: Invocation, host: str | None, port: int | None) -> str | None:
    """The flags' address; what they leave open is as configured."""
    if host is None and port is None:
        return None
    from providers.remote.addresses import Address, parse_listen

    usual_host, usual_port = parse_listen(call.settings().plugins.grpc_addr)
    host, port = host or usual_host, usual_port if port is None else port
    return Address(host, port).target


async def _serve(call: Invocation, settings: Settings, parts: _Parts) -> None:
    from worker.assembly import open_backends, settle_memory

    backend = await open_backends(settings)
    async with backend, _services(settings, backend, parts) as server:
        settle_memory()
        if server is not None and call.screen.fancy_notes:
            _welcome(call, server)
        await _until_told()


@asynccontextmanager
async def _services(settings: Settings, backend: Backend, parts: _Parts) -> AsyncIterator[HttpServer | None]:
    """All endpoints of this command."""
    server: HttpServer | None = None
    async with AsyncExitStack() as stack:
        if parts.grpc:
            from worker.engine import engine_running

            await stack.enter_async_context(engine_running(settings.plugins, backend.state))
        if parts.http:
            from worker.gateway.running import gateway_running

            server = await stack.enter_async_context(gateway_running(settings, backend))
        yield server


def _welcome(call: Invocation, server: HttpServer) -> None:
    """Where it listens, and what to try next."""
    header = "" if server.is_open else ' -H "Authorization: Bearer $SHOAL_KEY"'
    keys = "no key is asked for: this machine only" if server.is_open else "it asks for a key: shoal key create"
    for line in (
        f"Shoal listens on {server.url} ({keys})",
        f"  pages   {server.url}/",
        f"  API     {server.url}/docs",
        f'  try     curl {server.url}/v1/tasks{header} --json \'{{"prompt": "Write a haiku"}}\'',
        "  work    shoal worker   (in another terminal: it runs the tasks)",
    ):
        call.screen.note(line, "")


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
