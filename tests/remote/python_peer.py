"""Peers as the Python SDK 1.11.0 makes them, on grpcio: no content subtype, byte fields as raw text, and its faults.

`FaultyPlugin` answers as that version was measured to; `MendedPlugin` as it does once its two serialisers are replaced.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

PLUGIN_SERVICE = "mirastack.plugin.v1.PluginService"


class PythonServer:
    """A service whose handlers take and return plain values; what they raise becomes UNKNOWN, as grpcio has it."""

    def __init__(self, service: str, handlers: dict[str, Callable[[Any], Any]]) -> None:
        self.service = service
        self.handlers = handlers
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.port = 0
        self._server: Any = None

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    def calls(self, method: str) -> list[Any]:
        """The requests of one method, read."""
        return [json.loads(body) for seen, _, body in self.seen if seen == method]

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        methods = {name: self._method(name, handler) for name, handler in self.handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self.service, methods),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop(None)

    def _method(self, name: str, handler: Callable[[Any], Any]) -> Any:
        async def handle(body: bytes, context: Any) -> bytes:
            self.seen.append((name, dict(context.invocation_metadata()), body))
            try:
                answer = handler(json.loads(body or b"{}"))
            except StatusError as error:
                await context.abort(error.code, error.details)
                raise
            except Exception as error:
                await context.abort(grpc.StatusCode.UNKNOWN, f"Exception calling application: {error}")
                raise
            return json.dumps(answer).encode()

        return grpc.unary_unary_rpc_method_handler(handle)


class StatusError(Exception):
    """A call that ends with that status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


def _only_empty(request: Any) -> None:
    if request:
        raise StatusError(grpc.StatusCode.INTERNAL, "Exception deserializing request!")


class FaultyPlugin(PythonServer):
    """Registers, says who it is and that it is well; everything else fails as it does in 1.11.0."""

    def __init__(self, name: str) -> None:
        super().__init__(
            PLUGIN_SERVICE,
            {
                "Info": self.info,
                "GetSchema": self.get_schema,
                "HealthCheck": self.health_check,
                "ConfigUpdated": self.config_updated,
                "Execute": self.execute,
            },
        )
        self.name = name
        self.healthy = True

    def info(self, request: Any) -> Any:
        """No `metadata`, no `instance_id`."""
        _only_empty(request)
        return {
            "name": self.name,
            "version": "1.0.0",
            "description": "A plugin of the Python SDK",
            "type": 1,
            "permission": 1,
            "devops_stages": [8],
            "default_intents": [],
            "actions": [{"id": "look", "description": "Looks", "permission": 1, "stages": [8], "intents": []}],
            "config_schema": [
                {
                    "key": "endpoint",
                    "type": "string",
                    "required": True,
                    "default": "http://localhost",
                    "description": "Where",
                    "is_secret": False,
                }
            ],
        }

    def get_schema(self, request: Any) -> Any:
        """Never works."""
        _only_empty(request)
        raise StatusError(grpc.StatusCode.INTERNAL, "Failed to serialize response!")

    def health_check(self, request: Any) -> Any:
        """Works, with an empty request."""
        _only_empty(request)
        return {"healthy": True} if self.healthy else {"healthy": False, "message": "feels ill"}

    def config_updated(self, request: Any) -> Any:
        """Never works."""
        raise AttributeError("'ConfigUpdatedRequest' object has no attribute 'get'")

    def execute(self, request: Any) -> Any:
        """Never works."""
        raise AttributeError("'ExecuteRequest' object has no attribute 'get'")


class MendedPlugin(FaultyPlugin):
    """A plugin of the same SDK with serialisers that work. `answer` maps the parameters of Execute to outputs."""

    def __init__(self, name: str, answer: Callable[[dict[str, Any]], dict[str, str]]) -> None:
        super().__init__(name)
        self._answer = answer
        self.config: dict[str, str] = {}

    def get_schema(self, request: Any) -> Any:
        """Raw JSON texts."""
        _only_empty(request)
        return {"params_json_schema": "[]", "result_json_schema": "[]", "actions": []}

    def config_updated(self, request: Any) -> Any:
        """Takes them, and answers with nothing."""
        self.config.update(request["config"])
        return {}

    def execute(self, request: Any) -> Any:
        """Reads `params_json` as raw text and knows the mode as `mode`."""
        params = json.loads(request["params_json"])
        assert request["mode"] == 3
        assert "execution_mode" not in request
        return {"result_json": json.dumps(self._answer(params)), "logs": [], "success": True}


class PythonClient:
    """Calls as the SDK makes them: grpcio, plain `application/grpc`, no `x-plugin-name`."""

    def __init__(self, address: str, service: str) -> None:
        self._address = address
        self._service = service

    async def call(self, method: str, request: Any) -> Any:
        """One answer. Raises `grpc.aio.AioRpcError`."""
        channel: Any
        async with grpc.aio.insecure_channel(self._address) as channel:
            answer = await channel.unary_unary(f"/{self._service}/{method}")(json.dumps(request).encode(), timeout=30)
        return json.loads(answer)
