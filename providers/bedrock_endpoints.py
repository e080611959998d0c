"""Which AWS region and which addresses a Bedrock call goes to."""

from __future__ import annotations

import os
import re

from msgspec import Struct

from providers.aws_profiles import load_profiles, profile_name

_ARN_REGION = re.compile(r"arn:aws[\w-]*:(?:bedrock|sagemaker):([a-z0-9-]+):")
_HOST_REGION = re.compile(r"bedrock(?:-runtime)?(?:-fips)?\.([a-z0-9-]+)\.(?:vpce\.)?amazonaws\.com")


class Endpoints(Struct, frozen=True, kw_only=True):
    """Where calls go, without a slash at the end."""

    region: str
    """Empty if nothing tells it."""
    runtime: str
    """For calls of models; empty if it would take a region that is not known."""
    control: str
    """For the list of models; empty likewise."""


async def endpoints(
    model: str, *, base_url: str = "", control_url: str = "", region: str = "", profile: str = ""
) -> Endpoints:
    """The endpoints for a model. The region is, in this order: that of the model's ARN, `region`, `AWS_REGION`,
    `AWS_DEFAULT_REGION`, the profile's, that of `base_url`.

    `base_url` and `control_url` count more than `AWS_ENDPOINT_URL_BEDROCK_RUNTIME` and `AWS_ENDPOINT_URL_BEDROCK`, and
    these more than `AWS_ENDPOINT_URL`; another server than AWS's own is taken to know both kinds of calls.
    """
    env = os.environ
    everything = env.get("AWS_ENDPOINT_URL", "")
    runtime = (base_url or env.get("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "") or everything).rstrip("/")
    control = (control_url or env.get("AWS_ENDPOINT_URL_BEDROCK", "") or everything).rstrip("/")
    region = await _region(model, region, profile, runtime)
    if not control and not _HOST_REGION.search(runtime):
        control = runtime
    return Endpoints(
        region=region,
        runtime=runtime or _address("bedrock-runtime", region),
        control=control or _address("bedrock", region),
    )


async def _region(model: str, region: str, profile: str, runtime: str) -> str:
    if in_arn := _ARN_REGION.match(model):
        return in_arn[1]
    chosen = region or os.environ.get("AWS_REGION", "") or os.environ.get("AWS_DEFAULT_REGION", "")
    if not chosen:
        chosen = (await load_profiles()).get(profile_name(profile), {}).get("region", "")
    if not chosen and (in_host := _HOST_REGION.search(runtime)):
        chosen = in_host[1]
    return chosen


def _address(service: str, region: str) -> str:
    if not region:
        return ""
    fips = "-fips" if os.environ.get("AWS_USE_FIPS_ENDPOINT", "").lower() == "true" else ""
    return f"https://{service}{fips}.{region}.amazonaws.com"
