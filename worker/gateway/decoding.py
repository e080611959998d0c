"""From a request to typed values: its JSON body and its query, or a problem that says what does not fit."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from functools import cache
from itertools import accumulate
from typing import Any, Final, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo, fields
from starlette.datastructures import QueryParams
from starlette.requests import Request

from worker.gateway.problem import Problem

_MOST_QUERY_CHARS: Final = 8192
MOST_LEVELS: Final = 128
"""Of a body's objects and lists in each other."""
_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_STEPS: Final = bytes(set(range(256)) - set(b"[{]}"))
_LISTS: Final = (list, tuple, set, frozenset)


def check_content_type(content_type: str) -> None:
    """Raises `Problem` 415 for what is no JSON: pages of others can send only such without asking the browser."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        given = f"is {media_type[:100]!r}" if media_type else "is missing"
        raise Problem(415, f"Content-Type {given}: send application/json", code="unsupported_media_type")


def decode_body(raw: bytes, kind: Any) -> Any:
    """The request's JSON as `kind`. Raises `Problem` 400."""
    if not raw.strip():
        raise Problem(400, "the body is empty: send a JSON object", code="invalid_body")
    try:
        decoded = msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise Problem(400, f"the body does not fit: {error}", code="invalid_body") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Problem(400, f"the body is no JSON: {error}", code="invalid_json") from error
    if _levels(raw) > MOST_LEVELS:
        raise Problem(400, f"the body is nested deeper than {MOST_LEVELS} levels", code="invalid_body")
    return decoded


def _levels(raw: bytes) -> int:
    """How deeply good JSON is nested, or a bound of it that is low enough. What can just be read here could not be
    written again, or read by a worker, which stand deeper in their own calls."""
    openings = raw.count(b"[") + raw.count(b"{")
    if openings <= MOST_LEVELS:
        return openings
    return max(accumulate(array("b", _STRINGS.sub(b"", raw).translate(_STEPS, _NO_STEPS))), default=0)


def decode_query(request: Request, kind: Any, *, refuses_unknown: bool) -> Any:
    """The query's parameters as `kind`, a Struct; None if there is no kind. Raises `Problem` 400."""
    given = request.query_params
    if len(request.scope["query_string"]) > _MOST_QUERY_CHARS:
        raise Problem(400, f"the query is longer than {_MOST_QUERY_CHARS} characters", code="invalid_query")
    known = _fields_of(kind) if kind is not None else {}
    if refuses_unknown and (unknown := sorted(set(given) - set(known))):
        allowed = f"known are {', '.join(known)}" if known else "there is none here"
        raise Problem(400, f"unknown query parameter {unknown[0][:100]!r}: {allowed}", code="invalid_query")
    if kind is None:
        return None
    values = {name: _value(given, name, field) for name, field in known.items() if name in given}
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(400, f"the query does not fit: {error}", code="invalid_query") from error


@cache
def _fields_of(kind: type[msgspec.Struct]) -> Mapping[str, FieldInfo]:
    """By name. Kept, because their types are evaluated anew each time, which takes longer than all else here."""
    return {field.encode_name: field for field in fields(kind)}


def _value(given: QueryParams, name: str, field: FieldInfo) -> Any:
    values = given.getlist(name)
    if _is_list(field.type):
        return [part for value in values for part in value.split(",") if part]
    if len(values) > 1:
        raise Problem(400, f"query parameter {name!r} is given {len(values)} times: give it once", code="invalid_query")
    if values[0] == "" and field.default is not msgspec.NODEFAULT and not isinstance(field.default, str):
        return field.default  # `?limit=` is what forms send for a field left empty
    return values[0]


def _is_list(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    return origin in _LISTS or any(_is_list(part) for part in get_args(kind) if part is not kind)
