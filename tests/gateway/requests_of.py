"""A request for any operation, made of its declaration, so that tests can walk over all of them."""

from __future__ import annotations

import enum
import itertools
import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import aiohttp
import msgspec
from msgspec import Meta, Struct

from queue_backends.messages import encode_json
from worker.gateway.operation import Operation

PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")

_addresses = itertools.count(1)


def sample(kind: Any) -> Any:
    """The least value that fits a type: what must be there, and nothing else."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        least = next((meta for meta in inner[1:] if isinstance(meta, Meta)), Meta())
        return _least(sample(inner[0]), least, inner[0])
    if origin in (Union, types.UnionType):
        return None if type(None) in inner else sample(inner[0])
    if origin is Literal:
        return inner[0]
    plain = origin or kind
    if isinstance(plain, type) and issubclass(plain, Struct):
        hints = get_type_hints(plain, include_extras=True)
        fields = [each for each in msgspec.structs.fields(plain) if each.required]
        made = {each.encode_name: sample(hints[each.name]) for each in fields}
        config = plain.__struct_config__
        return {**made, config.tag_field: config.tag} if config.tag_field else made
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        return next(iter(plain)).value
    simple: dict[Any, Any] = {str: "probe", int: 1, float: 1.0, bool: True}
    if plain in simple:
        return simple[plain]
    return [] if plain in (list, tuple, set, frozenset) or _is_sequence(plain) else {}


def _least(value: Any, meta: Meta, kind: Any) -> Any:
    if value == [] and meta.min_length:
        return [sample(get_args(kind)[0])] * meta.min_length
    return value


def _is_sequence(kind: Any) -> bool:
    return getattr(kind, "__name__", "") == "Sequence"


def path_of(operation: Operation, parameters: Mapping[str, str]) -> str:
    """The operation's path with values for its parameters; `none-such` for those not given."""
    return PARAMETER.sub(lambda match: parameters.get(match[1], "none-such"), operation.path)


def walker(url: str) -> aiohttp.ClientSession:
    """A client for many requests: it takes a third of the usual one's time."""
    return aiohttp.ClientSession(base_url=url, timeout=aiohttp.ClientTimeout(total=30.0))


async def status_and_text(
    client: aiohttp.ClientSession,
    operation: Operation,
    *,
    key: str = "",
    parameters: Mapping[str, str] | None = None,
    body: Any = None,
) -> tuple[int, str]:
    """Send the operation's least request, as if from a client of its own; of a stream, the beginning is not read."""
    headers = {"X-Forwarded-For": f"198.18.{next(_addresses) // 250 % 250}.{next(_addresses) % 250}"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    content = b""
    if operation.body is not None:
        headers["Content-Type"] = "application/json"
        content = encode_json(sample(operation.body) if body is None else body)
    path = path_of(operation, parameters or {})
    query = {"session_id": "none-such"} if "session_id" in _query_names(operation) else {}
    async with client.request(operation.method, path, headers=headers, data=content, params=query) as answer:
        if answer.content_type == "text/event-stream":
            return answer.status, ""
        return answer.status, await answer.text()


def _query_names(operation: Operation) -> set[str]:
    if operation.query is None:
        return set()
    return {each.encode_name for each in msgspec.structs.fields(operation.query)}
