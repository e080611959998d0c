"""go-plugin's broker: how a plugin learns where the services of its host are.

The host says `ConnInfo{id, unix, path}` on a stream, and the plugin, which was told the id in some message, dials the
path. An announcement is forgotten after five seconds if nobody dials, and one serves one dial: so it is said again
before every call in which the plugin may dial. Source: hashicorp's go-plugin, `grpc_broker.go`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from providers.remote.library import grpc_library
from queue_backends.protobuf import encode
from worker.agent_plugins.errors import PluginStartFailed
from worker.agent_plugins.go_plugin.channel import PluginCallFailed, PluginChannel
from worker.agent_plugins.go_plugin.messages import ConnInfo

METHOD = "/plugin.GRPCBroker/StartStream"
SERVICE_ID = 1
"""There is one service for the life of a process. Ids begin at 1."""


class Broker:
    """The stream of announcements to one process."""

    def __init__(self, channel: PluginChannel, address: str) -> None:
        """`address`: the path of the socket on which the host's services listen."""
        self._announcement = encode(ConnInfo(service_id=SERVICE_ID, network="unix", address=address))
        self._failures = grpc_library().AioRpcError
        self._call: Any = channel.both_ways(METHOD)
        self._writing = asyncio.Lock()

    async def announce(self) -> None:
        """Say where the services are, once more. Raises `PluginCallFailed`."""
        async with self._writing:
            try:
                await self._call.write(self._announcement)
            except (self._failures, asyncio.InvalidStateError) as error:
                raise PluginCallFailed(METHOD, "UNAVAILABLE", "the broker's stream has ended") from error

    async def run(self) -> None:
        """Take what the plugin announces, which is nothing that we dial; returns when the stream has ended."""
        try:
            async for _ in self._call:
                continue
        except self._failures as error:
            if error.code().name == "UNIMPLEMENTED":
                raise PluginStartFailed("the plugin has no broker: it was not made with go-plugin") from error

    def close(self) -> None:
        """Say no more."""
        self._call.cancel()
