"""The OpenAPI 3.1 document, made of the operations and the types that they name.

Source: https://spec.openapis.org/oas/v3.1.0; its schemas are JSON Schema 2020-12, which msgspec writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from worker.gateway.error_schemas import ERROR_SCHEMAS
from worker.gateway.operation import Operation
from worker.gateway.problem import ErrorStyle
from worker.version import version

_REF: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"\{(\w+)(?::(\w+))?\}")
_ALWAYS: Final = (400, 401, 403, 413, 429, 500, 503)
_OPEN_ALWAYS: Final = (400, 500)
_MEDIA: Final = {ErrorStyle.PROBLEM: "application/problem+json"}
_DESCRIPTION: Final = (
    "Tasks, agents, sessions and operations of a Shoal fleet. Errors of `/v1` are problem details (RFC 9457); paths of "
    "other vendors' APIs answer in their forms. Authenticate with an API key or an OIDC token as bearer."
)
_SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key (`shoal_…`), or an OIDC token"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key"},
    "queryToken": {"type": "apiKey", "in": "query", "name": "token", "description": "An API key, on Studio's paths"},
}


def openapi_document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document of all operations that are not hidden."""
    shown = [operation for operation in operations if not operation.is_hidden]
    types = _Types(shown)
    paths: dict[str, dict[str, Any]] = {}
    for operation in shown:
        path = _PARAMETER.sub(r"{\1}", operation.path)
        paths.setdefault(path, {}).setdefault(operation.method.lower(), _operation(operation, types))
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Shoal",
            "version": version(),
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in shown)],
        "components": {"schemas": types.components(), "securitySchemes": _SECURITY_SCHEMES},
    }
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document))  # tuples and enums become lists and text
    return plain


class _Types:
    """Schemas of everything that operations take and give."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._kinds: list[Any] = []
        self._places: dict[int, int] = {}
        queries: set[str] = set()
        for operation in operations:
            for kind in (operation.body, operation.query, operation.result, *operation.also.values()):
                self._add(kind)
        self._schemas, self._components = msgspec.json.schema_components(
            self._kinds, ref_template=_REF, schema_hook=_unknown
        )
        for operation in operations:
            if operation.query is not None:
                queries.add(self._name(operation.query))
        others = {
            self._name(kind)
            for op in operations
            for kind in (op.body, op.result, *op.also.values())
            if kind is not None
        }
        self._only_queries = queries - others

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of a type, which may be a reference."""
        return dict(self._schemas[self._places[id(kind)]])

    def fields_of(self, kind: Any) -> dict[str, Any]:
        """The schema of a Struct, written out."""
        return dict(self._components[self._name(kind)])

    def components(self) -> dict[str, Any]:
        """All schemas that are referred to by name."""
        found = {name: schema for name, schema in self._components.items() if name not in self._only_queries}
        return {**found, **ERROR_SCHEMAS}

    def _add(self, kind: Any) -> None:
        if kind is not None and id(kind) not in self._places:
            self._places[id(kind)] = len(self._kinds)
            self._kinds.append(kind)

    def _name(self, kind: Any) -> str:
        return str(self.of(kind).get("$ref", "")).rpartition("/")[2]


def _unknown(kind: type) -> dict[str, Any]:
    """What msgspec has no schema for, such as a Protocol, is any value."""
    return {}


def _operation(operation: Operation, types: _Types) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": _operation_id(operation),
        "summary": operation.summary,
        "tags": [operation.tag],
        "security": _security(operation),
        "responses": _responses(operation, types),
    }
    if operation.scope is not None:
        found["description"] = f"Needs the scope `{operation.scope.value}`."
    if parameters := [*_path_parameters(operation), *_query_parameters(operation, types)]:
        found["parameters"] = parameters
    if operation.body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": types.of(operation.body)}}}
    return found


def _operation_id(operation: Operation) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "_", _PARAMETER.sub(r"by_\1", operation.path)).strip("_")
    return f"{operation.method.lower()}_{words or 'root'}"


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    if operation.scope is None:
        return []
    schemes = ["bearer", "apiKey", *(["queryToken"] if operation.style is ErrorStyle.STUDIO else [])]
    return [{scheme: []} for scheme in schemes]


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": _PATH_TYPES.get(kind or "", "string")}}
        for name, kind in _PARAMETER.findall(operation.path)
    ]


_PATH_TYPES: Final = {"int": "integer", "float": "number"}


def _query_parameters(operation: Operation, types: _Types) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    schema = types.fields_of(operation.query)
    required = set(schema.get("required", ()))
    found = []
    for name, of_field in schema.get("properties", {}).items():
        parameter = {"name": name, "in": "query", "required": name in required, "schema": of_field}
        if isinstance(of_field, Mapping) and "description" in of_field:
            parameter["description"] = of_field["description"]
        found.append(parameter)
    return found


def _responses(operation: Operation, types: _Types) -> dict[str, Any]:
    statuses = {*(_ALWAYS if operation.scope is not None else _OPEN_ALWAYS), *operation.errors}
    if operation.body is not None:
        statuses |= {408, 415}
    errors = {str(status): _error(operation.style, HTTPStatus(status).phrase) for status in sorted(statuses)}
    others = {"default": _error(operation.style, "Any other problem")}
    also = {str(status): _json(HTTPStatus(status).phrase, kind, types) for status, kind in operation.also.items()}
    return {str(operation.status): _success(operation, types), **also, **errors, **others}


def _json(said: str, kind: Any, types: _Types) -> dict[str, Any]:
    content = {"content": {"application/json": {"schema": types.of(kind)}}} if kind is not None else {}
    return {"description": said, **content}


def _success(operation: Operation, types: _Types) -> dict[str, Any]:
    found: dict[str, Any] = {"description": HTTPStatus(operation.status).phrase}
    content: dict[str, Any] = {}
    if operation.is_stream or _may_stream(operation):
        content["text/event-stream"] = {"schema": {"type": "string"}}
    if operation.is_file:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    if operation.result is not None:
        content["application/json"] = {"schema": types.of(operation.result)}
    if content:
        found["content"] = content
    return found


def _may_stream(operation: Operation) -> bool:
    """Whether the body may ask for a stream, as those of OpenAI and Anthropic do."""
    kind = operation.body
    return kind is not None and "stream" in getattr(kind, "__struct_fields__", ())


def _error(style: ErrorStyle, said: str) -> dict[str, Any]:
    media = _MEDIA.get(style, "application/json")
    return {"description": said, "content": {media: {"schema": {"$ref": _REF.format(name=_ERROR_NAMES[style])}}}}


_ERROR_NAMES: Final = {
    ErrorStyle.PROBLEM: "ProblemDetails",
    ErrorStyle.STUDIO: "StudioError",
    ErrorStyle.OPENAI: "OpenAIError",
    ErrorStyle.ANTHROPIC: "AnthropicError",
}
