"""Which parts of the Responses protocol a server, a model and a conversation take. Pure."""

from __future__ import annotations

import msgspec

from providers.errors import InvalidRequest, ProviderError
from providers.openai_request import refuses_sampling
from providers.openai_schema import SchemaSupport, lasting_schema, relaxed_schema


class ResponsesDialect(SchemaSupport, frozen=True, kw_only=True):
    """All of it is asked for first; what is refused is left out from then on."""

    encrypted_reasoning: bool = True
    """`include: ["reasoning.encrypted_content"]`, which models that do not reason may refuse."""
    summaries: bool = True
    """`reasoning.summary`, which some models and unverified organizations are refused."""
    sampling: bool = True
    """`temperature` and `top_p`, which reasoning models refuse."""
    tools: bool = True
    carried: bool = True
    """Reasoning goes back as it came. Another organization's, or one of keys long gone, cannot be decrypted."""
    stored: bool = True
    """`previous_response_id`, if the agent asks for it. Stored responses expire."""


def relaxed(dialect: ResponsesDialect, error: ProviderError) -> ResponsesDialect | None:
    """The dialect to try after the server refused a request; None if the refusal is about something else."""
    if not isinstance(error, InvalidRequest) and error.status != 500:
        return None
    said = str(error).lower()
    for field, refused in _REFUSALS:
        if getattr(dialect, field) and refused(said):
            return msgspec.structs.replace(dialect, **{field: False})
    return relaxed_schema(dialect, said)


def lasting(dialect: ResponsesDialect) -> ResponsesDialect:
    """What holds for a model from then on: not what was wrong with one conversation, or may be put right."""
    return msgspec.structs.replace(lasting_schema(dialect), carried=True, stored=True, tools=True)


def _refuses_previous(said: str) -> bool:
    return "previous_response" in said or "previous response" in said


def _refuses_carried(said: str) -> bool:
    if "invalid_encrypted_content" in said or "could not be verified" in said or "could not be decrypted" in said:
        return True
    # "Item 'rs_…' of type 'reasoning' was provided without its required following item", and the other way round.
    if "was provided without its required" in said:
        return True
    return "not found" in said and ("'rs_" in said or "'msg_" in said or "'fc_" in said)


def _refuses_encryption(said: str) -> bool:
    # "Encrypted content is not supported with this model", or a server that does not know `include`.
    return "encrypted content is not supported" in said or "reasoning.encrypted_content" in said or "'include'" in said


def _refuses_summaries(said: str) -> bool:
    return "reasoning.summary" in said or "reasoning summar" in said


def _refuses_tools(said: str) -> bool:
    return "does not support tools" in said


_REFUSALS = (
    ("stored", _refuses_previous),
    ("carried", _refuses_carried),
    ("encrypted_reasoning", _refuses_encryption),
    ("summaries", _refuses_summaries),
    ("sampling", refuses_sampling),
    ("tools", _refuses_tools),
)
