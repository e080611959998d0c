"""Tools that are one HTTP request. Behaviour and error texts are ark's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from providers import BadResponse, InvalidRequest, ProviderError
from providers.calls import Response
from providers.messages import ToolSpec
from queue_backends.messages import encode_json
from worker.errors import ToolCallFailed
from worker.net_guard import AddressRefused, Http
from worker.tools.config import WebhookTool
from worker.tools.interfaces import ToolContext, ToolResult
from worker.tools.redaction import redact

_MAX_ERROR_CHARS = 2000
_TRANSPORT_GRACE_S = 5.0
"""Beyond the tool's own limit, so that the catalogue's time-out is the one that is told."""


class Webhook:
    """A `Tool` that sends its arguments as JSON and answers with the body of the response."""

    after_timeout = "the request was broken off, but it may have taken effect"

    def __init__(self, config: WebhookTool, http: Http, *, environ: Mapping[str, str] = os.environ) -> None:
        self._config = config
        self._http = http
        self._environ = environ
        self._method = config.method.upper() or "POST"
        self.spec = ToolSpec(
            name=config.name,
            description=config.description,
            input_schema=config.schema,
            idempotent=config.idempotent,
            timeout_s=config.timeout_s,
            kind="webhook",
        )

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Send the request; any 2xx answer's body is the result. Raises `ToolCallFailed`."""
        secret_headers = self._secret_headers()
        secrets = (*secret_headers.values(), urlsplit(self._config.url).password or "")
        try:
            response = await self._send(arguments, secret_headers)
        except ToolCallFailed as error:
            raise ToolCallFailed(redact(str(error), secrets)) from error
        text = redact(response.body.decode("utf-8", "replace"), secrets)
        if not 200 <= response.status < 300:
            raise self._failed(f"server returned {response.status}: {text[:_MAX_ERROR_CHARS]}")
        return ToolResult(text=text)

    async def _send(self, arguments: dict[str, Any], secret_headers: dict[str, str]) -> Response:
        has_body = self._method != "GET"
        headers = {**({"Content-Type": "application/json"} if has_body else {}), **secret_headers}
        try:
            return await self._http.request(
                self._method,
                self._config.url,
                headers=headers,
                content=encode_json(arguments) if has_body else b"",
                timeout_s=self._config.timeout_s + _TRANSPORT_GRACE_S,
            )
        except InvalidRequest as error:
            raise self._failed(f"building request: {error}") from error
        except BadResponse as error:
            raise self._failed(f"reading response: {error}") from error
        except (ProviderError, AddressRefused) as error:
            raise self._failed(f"request failed: {error}") from error

    def _secret_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for header, variable in self._config.headers_env.items():
            value = self._environ.get(variable, "").strip()
            if not value:
                raise self._failed(f'building request: env var "{variable}" for header {header} is not set or empty')
            headers[header] = value
        return headers

    def _failed(self, what: str) -> ToolCallFailed:
        return ToolCallFailed(f'webhook tool "{self._config.name}": {what}')
