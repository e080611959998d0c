"""OpenAI's models at Azure: Chat Completions or Responses, at the endpoint of a resource.

Source: https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle, and the pages `reference` and
`how-to/responses` next to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import ClassVar
from urllib.parse import quote, urlsplit

import msgspec

from providers import openai_settings
from providers.azure_entra import EntraTokens, source_of
from providers.calls import Call
from providers.capabilities import Capability
from providers.credentials import api_key, base_url
from providers.errors import AuthenticationFailed, InvalidRequest
from providers.interfaces import ConfigParam
from providers.messages import AgentConfig
from providers.openai_completions import ChatCompletions
from providers.openai_provider import OpenAIFamilyProvider, WireProtocol
from providers.openai_responses_protocol import Responses
from providers.transport import Transport

_PROVIDER = "azure"
_ENDPOINT_ENV = "AZURE_OPENAI_ENDPOINT"
_KEY_ENV = "AZURE_OPENAI_API_KEY"
_TOKEN_ENV = "AZURE_OPENAI_AD_TOKEN"  # noqa: S105 - the name of a variable
_VERSION_ENV = "OPENAI_API_VERSION"

_OTHER_CREDENTIALS = (
    f"{_TOKEN_ENV}; or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE; or the "
    "setting managed_identity"
)

_EXAMPLE = "https://YOUR-RESOURCE.openai.azure.com"
_PREVIEWS = frozenset({"preview", "latest"})
_BY_DEPLOYMENT = frozenset({"/chat/completions", "/embeddings"})
"""Paths that name the deployment where the API has a date as its version; all else has it in the body."""


class AzureEndpoint:
    """A resource at Azure. `live` gives the live setting of a name, else an empty text."""

    provider = _PROVIDER

    def __init__(self, live: Callable[[str], str], tokens: EntraTokens) -> None:
        self._live = live
        self._tokens = tokens

    def address(self, config: AgentConfig) -> str:
        """The resource's endpoint, without `/openai/v1`. Raises `InvalidRequest` if there is none, or a whole path."""
        address = base_url(config, _ENDPOINT_ENV, "", live=self._live("base_url"))
        if not address:
            said = f"no endpoint: set {_ENDPOINT_ENV}, or base_url, to that of the resource, such as {_EXAMPLE}"
            raise InvalidRequest(f"{_PROVIDER}: {said}", provider=_PROVIDER)
        address = address.removesuffix("/v1").removesuffix("/openai")
        if "?" in address or "/openai/" in urlsplit(address).path:
            said = f"is more than an endpoint: use the resource's, such as {_EXAMPLE}; the deployment is the model"
            raise InvalidRequest(f"{_PROVIDER}: {address.partition('?')[0]} {said}", provider=_PROVIDER)
        return address

    def is_vendor(self, config: AgentConfig) -> bool:
        """Azure takes all of the protocols; older versions of its API are found out."""
        return True

    async def call(self, config: AgentConfig, path: str, body: bytes = b"", *, model: str = "") -> Call:
        """A request to a deployment, which is what `config.model` names, or another `model`."""
        headers = {"content-type": "application/json", **config.options.get("extra_headers", {})}
        headers.update(await self._credentials(config))
        url = self._url(config, path, model or config.model)
        return Call(provider=_PROVIDER, url=url, headers=headers, body=body)

    def _url(self, config: AgentConfig, path: str, deployment: str) -> str:
        address = self.address(config) + "/openai"
        version = str(
            config.options.get("api_version") or self._live("api_version") or os.environ.get(_VERSION_ENV, "")
        )
        version = version.strip()
        if version in ("", "v1"):
            return f"{address}/v1{path}"
        if version in _PREVIEWS:
            return f"{address}/v1{path}?api-version=preview"
        if path in _BY_DEPLOYMENT:
            address += f"/deployments/{quote(deployment, safe='')}"
        return f"{address}{path}?api-version={quote(version)}"

    async def _credentials(self, config: AgentConfig) -> Mapping[str, str]:
        """The agent's own key; else a live setting, token first; else the environment's, token first; else a token that
        Entra ID gives for the identity of this process."""
        live_key, live_token = self._live("api_key"), self._live("ad_token")
        if not config.api_key_env and (live_token or not live_key):
            token = api_key(config, _TOKEN_ENV, self.provider, required=False, live=live_token)
            if token:
                return {"authorization": f"Bearer {token}"}
        key = api_key(config, _KEY_ENV, self.provider, required=False, live=live_key)
        if key:
            return {"api-key": key}
        of_machine = config.options.get("managed_identity") is True or self._live("managed_identity") == "true"
        source = source_of(os.environ, managed_identity=of_machine)
        if source is None:
            said = f"{_KEY_ENV} is not set; required for the {self.provider} provider, or else {_OTHER_CREDENTIALS}"
            raise AuthenticationFailed(said, provider=self.provider)
        return {"authorization": f"Bearer {await self._tokens.token(source)}"}


class AzureOpenAIProvider(OpenAIFamilyProvider):
    """`config.model` is a deployment of the resource that `config.base_url`, else `AZURE_OPENAI_ENDPOINT`, names.

    The key is `AZURE_OPENAI_API_KEY`'s (or that of the variable that `config.api_key_env` names); a token of Microsoft
    Entra ID in `AZURE_OPENAI_AD_TOKEN` counts more. With neither, Entra ID is asked for one, see
    `providers.azure_entra`. `config.options` may have `api` (`chat`, the default, or
    `responses`), `api_version` (else `OPENAI_API_VERSION`; none: the v1 API), and all that `openai` and
    `openai_responses` understand.
    """

    name = _PROVIDER
    params: ClassVar[tuple[ConfigParam, ...]] = (
        ConfigParam(key="api_key", description=f"key of the resource; else {_KEY_ENV}", secret=True),
        ConfigParam(key="ad_token", description=f"Entra ID token, used before a key; else {_TOKEN_ENV}", secret=True),
        ConfigParam(
            key="managed_identity",
            type="bool",
            description="without a key: be this machine's identity",
            default="false",
        ),
        ConfigParam(key="base_url", description=f"endpoint of the resource; else {_ENDPOINT_ENV}"),
        ConfigParam(key="api_version", description=f"v1, preview or a date; else {_VERSION_ENV}, or v1"),
        ConfigParam(key="api", description="chat or responses", default="chat"),
        openai_settings.MODEL,
        openai_settings.EMBEDDING_MODEL,
    )
    gaps: ClassVar[Mapping[Capability, str]] = {
        Capability.STOP_REASON: "the vendor does not tell it from the answer's natural end",
        Capability.EARLY_USAGE: "the vendor reports usage in the last chunk only",
        Capability.CACHE_WRITE_TOKENS: "the vendor does not report them",
        Capability.VENDOR_COUNT: "the vendor has no such call",
        Capability.VENDOR_MODEL_INFO: "the vendor tells names only",
    }

    def __init__(self, transport: Transport | None = None) -> None:
        super().__init__(transport)
        self.endpoint = AzureEndpoint(self.value, EntraTokens(self._transport, self.name))
        self._protocols: Mapping[str, WireProtocol] = {
            "chat": ChatCompletions(self.endpoint, self._transport),
            "responses": Responses(self.endpoint, self._transport),
        }

    def protocol(self, config: AgentConfig) -> WireProtocol:
        """That of `options.api`, else of the live setting `api`."""
        api = str(config.options.get("api") or self.value("api"))
        found = self._protocols.get(api)
        if found is None:
            raise InvalidRequest(f"{self.name}: options.api is {api!r}: use chat or responses", provider=self.name)
        return found


class AzureResponsesProvider(AzureOpenAIProvider):
    """The same, and `responses` is the default of `options.api`."""

    params = tuple(
        msgspec.structs.replace(param, default="responses") if param.key == "api" else param
        for param in AzureOpenAIProvider.params
    )
    gaps: ClassVar[Mapping[Capability, str]] = {
        **AzureOpenAIProvider.gaps,
        Capability.STOP: "the protocol has no stop sequences",
        Capability.STOP_REASON: "the protocol has no stop sequences",
    }
