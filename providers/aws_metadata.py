"""Credentials that AWS gives to what runs on it: containers (ECS, EKS Pod Identity) and instances (EC2).

Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html and feature-imds-credentials.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from providers.aws_keys import IssuedKeys, keys_from_json
from providers.errors import AuthenticationFailed, ProviderError, Unavailable
from providers.transport import Transport

_CONTAINER = "http://169.254.170.2"
_CONTAINER_HOSTS = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23", "localhost"})
_INSTANCE = "http://169.254.169.254"
_INSTANCE_IPV6 = "http://[fd00:ec2::254]"
_ROLES = "/latest/meta-data/iam/security-credentials/"
_TIMEOUT_S = 2.0
"""These services are one hop away; where they are not, nothing answers at all."""


async def container_keys(transport: Transport) -> IssuedKeys | None:
    """What the container's endpoint gives; None if there is none.

    Raises `AuthenticationFailed` if it refuses or may not be asked, `Unavailable` if it does not answer.
    """
    url = _container_url()
    if not url:
        return None
    token = await _authorization()
    headers = {"accept": "application/json", **({"authorization": token} if token else {})}
    body = await _ask(transport, "GET", url, headers, "the container's credentials endpoint")
    return keys_from_json(body, "the container's credentials endpoint")


async def instance_keys(transport: Transport) -> IssuedKeys | None:
    """What the instance's role gives, by the second version of the service; None if this is no instance with a role.

    Raises `Unavailable` if the service is there and fails.
    """
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    ipv6 = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "").lower() == "ipv6"
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or (_INSTANCE_IPV6 if ipv6 else _INSTANCE)
    base, name = base.rstrip("/"), "the instance's metadata service"
    try:
        wish = {"x-aws-ec2-metadata-token-ttl-seconds": "21600"}
        token = await _ask(transport, "PUT", f"{base}/latest/api/token", wish, name)
        headers = {"x-aws-ec2-metadata-token": token.decode("ascii").strip()}
        role = (await _ask(transport, "GET", base + _ROLES, headers, name)).decode().split("\n", 1)[0].strip()
        body = await _ask(transport, "GET", base + _ROLES + role, headers, name)
    except Unavailable as error:
        if error.status is None:
            return None  # nothing answers there: this is no instance
        raise
    except (ProviderError, UnicodeDecodeError):
        return None  # no role: that is no fault
    return keys_from_json(body, name)


def _container_url() -> str:
    if relative := os.environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", ""):
        return _CONTAINER + relative
    url = os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
    if url and not _may_be_asked(url):
        raise AuthenticationFailed(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor an address of this machine or its container "
            "service: nobody else may be asked for credentials"
        )
    return url


def _may_be_asked(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    host = parts.hostname or ""
    try:
        return parts.scheme == "http" and (host in _CONTAINER_HOSTS or ip_address(host).is_loopback)
    except ValueError:
        return False


async def _authorization() -> str:
    path = os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "")
    if not path:
        return os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    try:
        token = await asyncio.to_thread(Path(path).read_text, "utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = f"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: {path} cannot be read: {type(error).__name__}"
        raise AuthenticationFailed(said) from error
    return token.strip()


async def _ask(transport: Transport, method: str, url: str, headers: Mapping[str, str], name: str) -> bytes:
    answer = await transport.request(
        method, url, headers=headers, timeout_s=_TIMEOUT_S, connect_timeout_s=_TIMEOUT_S, max_body_bytes=1024 * 1024
    )
    if answer.status in (429, 500, 502, 503, 504):
        raise Unavailable(f"{name} answered {answer.status}", status=answer.status)
    if answer.status != 200:
        raise AuthenticationFailed(f"{name} answered {answer.status}", status=answer.status)
    return answer.body
