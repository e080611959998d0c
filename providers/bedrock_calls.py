"""How a Bedrock call is addressed, and who it says that it comes from."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from providers.aws_credentials import AwsAccess, AwsCredentials
from providers.aws_keys import AwsKeys
from providers.aws_sigv4 import Scope, path_part, signed_headers
from providers.bedrock_endpoints import Endpoints, endpoints
from providers.bedrock_messages import PROVIDER
from providers.calls import Call
from providers.credentials import api_key
from providers.errors import AuthenticationFailed, ProviderError
from providers.messages import AgentConfig
from providers.transport import Transport

API_KEY = "AWS_BEARER_TOKEN_BEDROCK"


class BedrockCalls:
    """Makes the calls; `value` gives the live settings."""

    def __init__(
        self, transport: Transport, value: Callable[[str], str], clock: Callable[[], float] = time.time
    ) -> None:
        self._value = value
        self._clock = clock
        self._credentials = AwsCredentials(transport, clock)

    async def endpoints(self, config: AgentConfig, model: str = "") -> Endpoints:
        """Where calls for a model go; without one, for the agent's."""
        return await endpoints(
            model or config.model,
            base_url=config.base_url or self._value("base_url"),
            control_url=self._value("control_url"),
            region=str(config.options.get("region", "") or self._value("region")),
            profile=self._value("profile"),
        )

    async def of_model(self, config: AgentConfig, model: str, action: str, body: bytes) -> Call:
        """A call of a model, such as `converse-stream`. Raises a `ProviderError` if it cannot be signed."""
        where = await self.endpoints(config, model)
        url = f"{where.runtime}/model/{path_part(model)}/{action}"
        return await self._signed(config, where, "POST", url, body)

    async def of_control(self, config: AgentConfig, path: str) -> Call:
        """A call that asks about models. Raises as `of_model` does."""
        where = await self.endpoints(config)
        return await self._signed(config, where, "GET", where.control + path, b"")

    async def _signed(self, config: AgentConfig, where: Endpoints, method: str, url: str, body: bytes) -> Call:
        headers = {"content-type": "application/json", **config.options.get("extra_headers", {})}
        live_keys = self._live_keys()
        signs = live_keys is not None and not config.api_key_env and not self._value("api_key")
        token = "" if signs else api_key(config, API_KEY, PROVIDER, required=False, live=self._value("api_key"))
        if not where.runtime or not (where.region or token):
            raise AuthenticationFailed(
                "no AWS region: set AWS_REGION, or `region` in the agent's options or the provider's settings",
                provider=PROVIDER,
            )
        if token:
            headers["authorization"] = f"Bearer {token}"
        else:
            keys = await self._keys(AwsAccess(keys=live_keys, profile=self._value("profile"), region=where.region))
            scope, now = Scope(region=where.region, service="bedrock"), datetime.fromtimestamp(self._clock(), UTC)
            headers = signed_headers(keys, scope, method, url, headers, body, now)
        return Call(provider=PROVIDER, url=url, headers=headers, body=body, method=method)

    async def _keys(self, access: AwsAccess) -> AwsKeys:
        try:
            return await self._credentials.keys(access)
        except ProviderError as error:
            error.provider = PROVIDER
            raise

    def _live_keys(self) -> AwsKeys | None:
        key, secret = self._value("access_key_id"), self._value("secret_access_key")
        if not key and not secret:
            return None
        if not key or not secret:
            raise AuthenticationFailed("access_key_id and secret_access_key go together: set both", provider=PROVIDER)
        return AwsKeys(access_key_id=key, secret_access_key=secret, session_token=self._value("session_token"))
