"""What Bedrock's model ids tell: who made a model, and how it wants to be asked. Pure.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/models-supported.html, and inference-profiles.html there.
"""

from __future__ import annotations

import enum

_AREAS = frozenset({"us", "us-gov", "eu", "apac", "ap", "jp", "au", "ca", "sa", "me", "global"})
"""What stands before a model's id in the id of a cross-region inference profile."""


class Maker(enum.StrEnum):
    """Makers whose models take settings of their own."""

    ANTHROPIC = "anthropic"
    AMAZON = "amazon"
    OPENAI = "openai"
    OTHER = "other"


def foundation_model(model: str) -> str:
    """The model that an id, a profile's id or an ARN of one means; an ARN of something else stays as it is."""
    if model.startswith("arn:"):
        kind, _, name = model.partition(":foundation-model/")
        kind, _, name = (kind, "", name) if name else model.partition(":inference-profile/")
        if not name:
            return model
        model = name
    area, _, rest = model.partition(".")
    return rest if area in _AREAS and "." in rest else model


def maker(model: str) -> Maker:
    """Who made the model. Of a provisioned or imported model's ARN, nothing is known."""
    name = foundation_model(model).partition(".")[0]
    return next((known for known in Maker if known.value == name), Maker.OTHER)


def caches_prompts(model: str) -> bool:
    """Whether cache points are worth a try: models that cannot cache refuse them."""
    return maker(model) is Maker.ANTHROPIC or foundation_model(model).startswith("amazon.nova")


def caches_tools(model: str) -> bool:
    """Whether a cache point may stand behind the tools."""
    return maker(model) is Maker.ANTHROPIC
