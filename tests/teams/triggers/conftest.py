"""The gateway of a module, as the gateway's own tests have it, and its quiet log."""

from tests.gateway.conftest import (  # noqa: F401 - pytest takes fixtures by their names
    _own_log,
    _quiet_log,
    gateway_config,
    gateway_queue_url,
    gateway_server,
)
