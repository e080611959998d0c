"""From `AGENT_LOOP_POLICY` to a policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from worker.errors import BadSetting
from worker.loop_policy.model import Compression, LoopMemory, LoopPolicy, SandboxPolicy
from worker.mid_sentence import mid_sentence

_PARTS: dict[str, type[Struct]] = {"compression": Compression, "memory": LoopMemory, "sandbox": SandboxPolicy}

log = structlog.get_logger(__name__)


def parse_loop_policy(text: str) -> LoopPolicy | None:
    """The policy; None for `null`. An operator may be newer than its workers: what they do not know is left out, with
    a warning.

    Raises `BadSetting` with ark's text: `invalid AGENT_LOOP_POLICY JSON: ...`.
    """
    try:
        found = msgspec.json.decode(text)
        unknown = sorted(_unknown(found))
        policy = msgspec.convert(_known(found), LoopPolicy | None)
    except msgspec.DecodeError as error:  # ValidationError is one
        raise BadSetting(f"invalid AGENT_LOOP_POLICY JSON: {mid_sentence(str(error))}") from error
    if unknown:
        log.warning("AGENT_LOOP_POLICY has fields that are not known here: they are ignored", fields=unknown)
    return policy


def _unknown(found: Any) -> Iterator[str]:
    if not isinstance(found, Mapping):
        return
    yield from found.keys() - set(LoopPolicy.__struct_encode_fields__)
    for name, part in _PARTS.items():
        inner = found.get(name)
        if isinstance(inner, Mapping):
            yield from (f"{name}.{field}" for field in inner.keys() - set(part.__struct_encode_fields__))


def _known(found: Any) -> Any:
    if not isinstance(found, Mapping):
        return found
    kept = {name: value for name, value in found.items() if name in LoopPolicy.__struct_encode_fields__}
    for name, part in _PARTS.items():
        if isinstance(inner := kept.get(name), Mapping):
            kept[name] = {field: value for field, value in inner.items() if field in part.__struct_encode_fields__}
    return kept
