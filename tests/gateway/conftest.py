"""One gateway for all tests of a module."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from worker.settings import Settings


@pytest.fixture(autouse=True, scope="session")
def _quiet_log() -> Iterator[None]:
    """Gateways log in threads of their own, also while nothing captures what they write."""
    _be_quiet()
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """What a command sets up for the process' log is taken back: a gateway of the next test would write to it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    _be_quiet()


def _be_quiet() -> None:
    structlog.reset_defaults()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), cache_logger_on_first_use=False)


@pytest.fixture(scope="module")
def gateway_config() -> Settings:
    """The settings of the module's gateway: a module may define a fixture of this name with its own
    (`gateway_settings(gateway={…})`)."""
    return gateway_settings()


@pytest.fixture(scope="module")
def gateway_queue_url() -> str:
    """The queue of the module's gateway: a module may define a fixture of this name with another one."""
    return "memory://"


@pytest.fixture(scope="module")
def gateway_server(gateway_config: Settings, gateway_queue_url: str) -> Iterator[GatewayServer]:
    """A running gateway with a worker inside, on the scripted provider; `.client()` may do everything."""
    with GatewayServer(gateway_config, queue_url=gateway_queue_url) as server:
        yield server
