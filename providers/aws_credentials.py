"""Where AWS keys come from, and how long they are kept: the usual chain, in its usual order.

Source: https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html. Single sign-on is left to AWS's
own tools: a profile's `credential_process` may run them.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

from msgspec import Struct

from providers.aws_keys import AwsKeys, IssuedKeys, keys_from_json
from providers.aws_metadata import container_keys, instance_keys
from providers.aws_profiles import Profiles, load_profiles, profile_name
from providers.aws_sts import Role, TokenService
from providers.errors import AuthenticationFailed, ProviderError
from providers.transport import Transport

_REFRESH_BEFORE_S = 300.0
_KEPT_S = 60.0
"""How long keys without an end are kept before their file is read again: somebody may have changed them."""
_PROGRAM_TIMEOUT_S = 60.0
_MOST_SOURCE_PROFILES = 5

_DECIDING_VARIABLES = (
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
)

_NOWHERE = (
    "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or AWS_BEARER_TOKEN_BEDROCK, "
    "or run where a role gives them (ECS, EKS, EC2)"
)


class AwsAccess(Struct, frozen=True, kw_only=True):
    """Who asks, as far as settings say it."""

    keys: AwsKeys | None = None
    """Keys that somebody set; they count more than all else."""
    profile: str = ""
    region: str = ""
    """For the token service."""


class AwsCredentials:
    """Finds keys, and keeps them until shortly before they expire. One refresh at a time, whoever waits for it."""

    def __init__(self, transport: Transport, clock: Callable[[], float] = time.time) -> None:
        self._transport = transport
        self._clock = clock
        self._tokens = TokenService(transport, clock)
        self._kept: dict[tuple[str, ...], IssuedKeys] = {}
        self._use_until: dict[tuple[str, ...], float] = {}
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def keys(self, access: AwsAccess) -> AwsKeys:
        """Keys that are good for at least some minutes. Raises `AuthenticationFailed`, or `Unavailable`."""
        if access.keys is not None:
            return access.keys
        found = _from_environment()
        if found is not None and not access.profile:
            return found
        who = (profile_name(access.profile), *(os.environ.get(name, "") for name in _DECIDING_VARIABLES))
        if self._clock() < self._use_until.get(who, 0.0):
            return self._kept[who].keys
        async with self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            if self._clock() >= self._use_until.get(who, 0.0):
                await self._refresh(who, access)
            return self._kept[who].keys

    async def _refresh(self, who: tuple[str, ...], access: AwsAccess) -> None:
        try:
            issued = await self._find(access)
        except ProviderError:
            kept = self._kept.get(who)
            now = self._clock()
            if kept is None or kept.expires_at is None or kept.expires_at <= now:
                raise
            # Still good: asked for again in a while, so that a failing service costs no call.
            self._use_until[who] = min(now + _KEPT_S, kept.expires_at)
            return
        self._kept[who] = issued
        now = self._clock()
        until = now + _KEPT_S if issued.expires_at is None else issued.expires_at - _REFRESH_BEFORE_S
        self._use_until[who] = max(until, now + 1.0)

    async def _find(self, access: AwsAccess) -> IssuedKeys:
        role = Role(arn=os.environ.get("AWS_ROLE_ARN", ""), session_name=os.environ.get("AWS_ROLE_SESSION_NAME", ""))
        token_file = os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE", "")
        if role.arn and token_file and not access.profile:
            return await self._tokens.by_web_identity(role, token_file, access.region)
        profiles = await load_profiles()
        name = profile_name(access.profile)
        if name not in profiles and name != "default":
            raise AuthenticationFailed(f"there is no AWS profile {name!r}; there are: {', '.join(profiles) or 'none'}")
        found = await self._of_profile(profiles, name, access.region, _MOST_SOURCE_PROFILES)
        found = found or await container_keys(self._transport) or await instance_keys(self._transport)
        if found is None:
            raise AuthenticationFailed(_NOWHERE)
        return found

    async def _of_profile(self, profiles: Profiles, name: str, region: str, depth: int) -> IssuedKeys | None:
        values = profiles.get(name, {})
        if arn := values.get("role_arn"):
            role = Role(
                arn=arn,
                session_name=values.get("role_session_name", ""),
                external_id=values.get("external_id", ""),
                duration_s=values.get("duration_seconds", ""),
            )
            return await self._of_role(profiles, name, role, values.get("region") or region, depth)
        if values.get("aws_access_key_id") and values.get("aws_secret_access_key"):
            return IssuedKeys(
                keys=AwsKeys(
                    access_key_id=values["aws_access_key_id"],
                    secret_access_key=values["aws_secret_access_key"],
                    session_token=values.get("aws_session_token", ""),
                )
            )
        if command := values.get("credential_process"):
            return await _of_program(name, command)
        if "sso_session" in values or "sso_start_url" in values:
            raise AuthenticationFailed(
                f"AWS profile {name!r} signs in by single sign-on: set `credential_process = aws configure "
                f"export-credentials --profile {name}` in a profile of its own, and use that"
            )
        return None

    async def _of_role(self, profiles: Profiles, name: str, role: Role, region: str, depth: int) -> IssuedKeys:
        values = profiles[name]
        if token_file := values.get("web_identity_token_file"):
            return await self._tokens.by_web_identity(role, token_file, region)
        if depth == 0:
            raise AuthenticationFailed(f"AWS profile {name!r}: source_profile goes round in a circle")
        source = values.get("source_profile", "")
        if source == name and values.get("aws_access_key_id"):
            own = {key: value for key, value in values.items() if key != "role_arn"}
            base = await self._of_profile({name: own}, name, region, depth - 1)
        elif source:
            base = await self._of_profile(profiles, source, region, depth - 1)
        else:
            base = await self._of_source(values)
        if base is None:
            raise AuthenticationFailed(
                f"AWS profile {name!r}: its role needs credentials to begin with: set source_profile or "
                "credential_source (Environment, EcsContainer, Ec2InstanceMetadata) to where they are"
            )
        return await self._tokens.by_keys(role, base.keys, region)

    async def _of_source(self, values: Mapping[str, str]) -> IssuedKeys | None:
        match values.get("credential_source"):
            case "Environment":
                keys = _from_environment()
                return IssuedKeys(keys=keys) if keys else None
            case "EcsContainer":
                return await container_keys(self._transport)
            case "Ec2InstanceMetadata":
                return await instance_keys(self._transport)
        return None


def _from_environment() -> AwsKeys | None:
    key, secret = (os.environ.get(name, "").strip() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    if not key or not secret:
        return None
    token = os.environ.get("AWS_SESSION_TOKEN", "").strip()
    return AwsKeys(access_key_id=key, secret_access_key=secret, session_token=token)


async def _of_program(profile: str, command: str) -> IssuedKeys:
    """What the program prints. Its errors go where ours go: it may ask for a sign-in there."""
    name = f"the credential_process of AWS profile {profile!r}"
    try:
        process = await asyncio.create_subprocess_exec(
            *shlex.split(command), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
    except (OSError, ValueError) as error:
        raise AuthenticationFailed(f"{name} cannot be started: {type(error).__name__}") from error
    try:
        async with asyncio.timeout(_PROGRAM_TIMEOUT_S):
            printed, _ = await process.communicate()
    except TimeoutError as error:
        raise AuthenticationFailed(f"{name} took longer than {_PROGRAM_TIMEOUT_S:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise AuthenticationFailed(f"{name} ended with {process.returncode}")
    return keys_from_json(printed, name)
