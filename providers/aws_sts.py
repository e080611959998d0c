"""AWS's token service: keys of a role, for an identity token or for other keys.

Source: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html and API_AssumeRole.html.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

from msgspec import Struct

from providers.aws_keys import AwsKeys, IssuedKeys, keys_from_xml
from providers.aws_sigv4 import Scope, signed_headers
from providers.errors import AuthenticationFailed, ProviderError, Unavailable
from providers.http_errors import excerpt, read_error_body
from providers.transport import Transport

_VERSION = "2011-06-15"
_NAME = "AWS's token service"


class Role(Struct, frozen=True, kw_only=True):
    """A role to be taken on."""

    arn: str
    session_name: str = ""
    external_id: str = ""
    duration_s: str = ""


class TokenService:
    """Asks it, in one region."""

    def __init__(self, transport: Transport, clock: Callable[[], float]) -> None:
        self._transport = transport
        self._clock = clock

    async def by_web_identity(self, role: Role, token_file: str, region: str) -> IssuedKeys:
        """The role's keys for the token in a file, such as Kubernetes puts there. Raises a `ProviderError`."""
        try:
            token = (await asyncio.to_thread(Path(token_file).read_text, "utf-8")).strip()
        except (OSError, UnicodeDecodeError) as error:
            said = f"the web identity token file {token_file} cannot be read: {type(error).__name__}"
            raise AuthenticationFailed(said) from error
        fields = _fields("AssumeRoleWithWebIdentity", role) | {"WebIdentityToken": token}
        return await self._ask(fields, region, None, (token,))

    async def by_keys(self, role: Role, keys: AwsKeys, region: str) -> IssuedKeys:
        """The role's keys for other keys. Raises a `ProviderError`."""
        fields = _fields("AssumeRole", role)
        return await self._ask(fields, region, keys, (keys.secret_access_key, keys.session_token))

    async def _ask(
        self, fields: Mapping[str, str], region: str, keys: AwsKeys | None, secrets: tuple[str, ...]
    ) -> IssuedKeys:
        url, body = _url(region), urlencode(fields).encode()
        headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
        if keys is not None:
            now = datetime.fromtimestamp(self._clock(), UTC)
            scope = Scope(region=region or "us-east-1", service="sts")
            headers = signed_headers(keys, scope, "POST", url, headers, body, now)
        answer = await self._transport.request("POST", url, headers=headers, content=body, timeout_s=15.0)
        if answer.status == 200:
            return keys_from_xml(answer.body, _NAME)
        said = excerpt(read_error_body(answer.body).message, secrets)
        kind: type[ProviderError] = Unavailable if answer.status >= 500 else AuthenticationFailed
        raise kind(f"{_NAME} refused the role {fields['RoleArn']}: {answer.status} {said}", status=answer.status)


def _fields(action: str, role: Role) -> dict[str, str]:
    fields = {
        "Action": action,
        "Version": _VERSION,
        "RoleArn": role.arn,
        "RoleSessionName": role.session_name or f"shoal-{os.getpid()}",
    }
    if role.external_id:
        fields["ExternalId"] = role.external_id
    if role.duration_s:
        fields["DurationSeconds"] = role.duration_s
    return fields


def _url(region: str) -> str:
    own = os.environ.get("AWS_ENDPOINT_URL_STS") or os.environ.get("AWS_ENDPOINT_URL")
    if own:
        return own.rstrip("/") + "/"
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://sts.{region}.{suffix}/" if region else "https://sts.amazonaws.com/"
