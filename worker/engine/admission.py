"""Who comes in: calls a plugin back, asks who it is, and turns that into what is kept of it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog
from msgspec import Struct

import providers
from providers import ConfigParam
from providers.messages import ToolSpec
from providers.remote.addresses import parse_address
from providers.remote.channel import ChannelOptions
from providers.remote.client import PluginClient, connect
from providers.remote.dialect import Dialect, unpacked_json
from providers.remote.engine_messages import RegisterPluginRequest
from providers.remote.faults import CallFailed
from providers.remote.instances import RemoteAction, RemoteInstance, Source
from providers.remote.payload import FEATURE
from providers.remote.plugin_messages import Action, GetSchemaResponse, InfoResponse, ParamItem
from providers.remote.tenants import DEFAULT_TENANT_ID, tenant_id
from providers.remote.wire import AGENT, CONNECTOR, READ, BadMessage, decode
from queue_backends.messages import encode_json

CALL_BACK_LIMIT_S = 5.0
ACTION_LIMIT_S = 120.0
MOST_BYTES = 1 << 20
"""Of what is kept of one plugin."""
MOST_SETTINGS = 200
MOST_ACTIONS = 500
_LONGEST_ID = 200
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_KEY = re.compile(r"[A-Za-z0-9_:@*-][A-Za-z0-9_.:@*-]{0,99}")
_TYPES = {"string": "string", "number": "number", "boolean": "boolean"}
_NO_TOOL_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_TOOL_NAME = 64

log = structlog.get_logger(__name__)


class NotAdmitted(Exception):
    """The plugin cannot be registered; the text says why, for its author to read."""


class Applicant(Struct, frozen=True, kw_only=True):
    """A plugin that wants in."""

    name: str
    addresses: Sequence[str]
    """Where it may be, the likeliest first."""
    instance_id: str
    dialect: Dialect
    version: str = ""
    plugin_type: int = 0
    tenant_id: str = ""
    source: Source = Source.SELF


def applicant(request: RegisterPluginRequest, dialect: Dialect, peer_host: str) -> Applicant:
    """Who registers itself. Raises `NotAdmitted` for what is missing or malformed."""
    if not _NAME.fullmatch(request.name):
        raise NotAdmitted(f"{request.name[:100]!r} is no name for a plugin: use letters, digits, _ and -, at most 100")
    if not request.instance_id:
        raise NotAdmitted("instance_id is empty: send an id of your own that stays the same for the process")
    if len(request.instance_id) > _LONGEST_ID or not request.instance_id.isprintable():
        raise NotAdmitted(f"instance_id: use at most {_LONGEST_ID} characters")
    try:
        address = parse_address(request.grpc_addr)
    except ValueError as error:
        raise NotAdmitted(f"grpc_addr: {error}") from error
    addresses = [str(address)]
    if peer_host and peer_host != address.host and not address.tls:
        # A host's name need not be known here; where the call came from is.
        addresses.append(str(msgspec.structs.replace(address, host=peer_host)))
    return Applicant(
        name=request.name,
        addresses=addresses,
        instance_id=request.instance_id,
        dialect=dialect,
        version=request.version,
        plugin_type=request.plugin_type,
        tenant_id="" if tenant_id(request.tenant_id) == DEFAULT_TENANT_ID else tenant_id(request.tenant_id),
    )


async def admitted(who: Applicant, options: ChannelOptions, shadow: Sequence[str]) -> RemoteInstance:
    """Call the plugin back and take down what it says of itself. Raises `NotAdmitted`."""
    if not _NAME.fullmatch(who.name):
        raise NotAdmitted(f"{who.name!r} is no name for a plugin: use letters, digits, _ and -, at most 100")
    if who.name in providers.available() and who.name not in shadow:
        raise NotAdmitted(
            f"{who.name!r} is the name of a built-in provider: serve yours under another name, or list it in the "
            "engine's setting plugins.shadow"
        )
    client, info, address = await _called_back(who, options)
    try:
        schema = await _schema(who, client)
    finally:
        await client.aclose()
    _check(who, info)
    found = _instance(who, info, schema, client.dialect, address)
    if (size := len(encode_json(found))) > MOST_BYTES:
        raise NotAdmitted(f"what it says of itself has {size} bytes: at most {MOST_BYTES} are kept")
    return found


def _instance(
    who: Applicant, info: InfoResponse, schema: GetSchemaResponse, dialect: Dialect, address: str
) -> RemoteInstance:
    return RemoteInstance(
        name=who.name,
        instance_id=who.instance_id,
        address=address,
        dialect=dialect,
        plugin_type=info.type or who.plugin_type,
        version=info.version or who.version,
        description=info.description,
        permission=info.permission,
        tenant_id=who.tenant_id,
        source=who.source,
        registered_at=time.time(),
        is_shoal=FEATURE in info.metadata,
        params=tuple(_param(item) for item in info.config_schema),
        actions=_actions(who.name, info, schema),
    )


async def _called_back(who: Applicant, options: ChannelOptions) -> tuple[PluginClient, InfoResponse, str]:
    """The first address where it answers, and who it says it is."""
    problem = ""
    for address in who.addresses:
        try:
            async with asyncio.timeout(CALL_BACK_LIMIT_S):
                client, info = await connect(address, who.dialect, options)
        except TimeoutError:
            problem = f"{address} did not answer within {CALL_BACK_LIMIT_S:g} s"
        except CallFailed as failed:
            if failed.status in {"INTERNAL", "UNKNOWN"}:
                # It is there. Python's SDK 1.11.0 cannot put actions with parameters into its answer.
                log.warning("a plugin cannot say who it is", plugin=who.name, address=address, error=str(failed))
                known = InfoResponse(name=who.name, version=who.version, type=who.plugin_type)
                return PluginClient(parse_address(address), who.dialect, options), known, address
            problem = f"{address}: {failed}"
        else:
            return client, info, address
    raise NotAdmitted(f"the engine cannot call back: {problem}; set MIRASTACK_PLUGIN_ADVERTISE_ADDR")


async def _schema(who: Applicant, client: PluginClient) -> GetSchemaResponse:
    """What Info does not tell; a plugin that cannot say is taken in by its Info alone."""
    try:
        async with asyncio.timeout(CALL_BACK_LIMIT_S):
            return await client.schema() or GetSchemaResponse()
    except (CallFailed, TimeoutError) as failed:
        log.warning("a plugin's GetSchema failed", plugin=who.name, error=str(failed) or "no answer in time")
        return GetSchemaResponse()


def _check(who: Applicant, info: InfoResponse) -> None:
    if info.name and info.name != who.name:
        raise NotAdmitted(f"it registers as {who.name!r}, and its Info says {info.name!r}")
    kind = info.type or who.plugin_type
    if not AGENT <= kind <= CONNECTOR:
        raise NotAdmitted(f"plugin type {kind} is unknown: 1 is an agent, 2 a provider, 3 a connector")
    if len(info.config_schema) > MOST_SETTINGS:
        raise NotAdmitted(f"it declares {len(info.config_schema)} settings: use at most {MOST_SETTINGS}")
    for item in info.config_schema:
        if not _KEY.fullmatch(item.key):
            raise NotAdmitted(f"{item.key[:100]!r} is no name for a setting: use letters, digits, _, - and .")
    ids = [action.id for action in info.actions]
    if len(ids) > MOST_ACTIONS:
        raise NotAdmitted(f"it declares {len(ids)} actions: use at most {MOST_ACTIONS}")
    if twice := sorted({each for each in ids if ids.count(each) > 1}):
        raise NotAdmitted(f"action {twice[0]!r} is declared twice")
    if not all(ids):
        raise NotAdmitted("an action has no id")
    tools = [_tool_name(who.name, each) for each in ids]
    if alike := sorted(each for each, tool in zip(ids, tools, strict=True) if tools.count(tool) > 1):
        raise NotAdmitted(f"the actions {alike[0]!r} and {alike[1]!r} would be the same tool for a model: rename one")


def _param(item: Any) -> ConfigParam:
    return ConfigParam(
        key=item.key,
        type=item.type or "string",
        description=item.description,
        required=item.required,
        default=item.default,
        secret=item.is_secret,
    )


def _actions(name: str, info: InfoResponse, schema: GetSchemaResponse) -> tuple[RemoteAction, ...]:
    of_schema = {action.id: action for action in schema.actions}
    return tuple(
        RemoteAction(
            id=action.id,
            permission=action.permission,
            tool=_tool(name, action, action.input_params or _input_of(of_schema.get(action.id))),
        )
        for action in info.actions or schema.actions
    )


def _input_of(action: Action | None) -> str:
    return action.input_params if action else ""


def _tool(plugin: str, action: Action, input_params: str) -> ToolSpec:
    return ToolSpec(
        name=_tool_name(plugin, action.id),
        description=action.description,
        input_schema=_schema_of(plugin, action.id, input_params),
        idempotent=action.permission == READ,
        timeout_s=ACTION_LIMIT_S,
        kind="plugin",
    )


def _tool_name(plugin: str, action_id: str) -> str:
    return _NO_TOOL_NAME.sub("_", f"{plugin}__{action_id}")[:_LONGEST_TOOL_NAME]


def _schema_of(plugin: str, action: str, input_params: str) -> dict[str, Any]:
    """The parameters as a JSON Schema; for an action that declares none, or none that can be read, anything fits."""
    anything: dict[str, Any] = {"type": "object"}
    if not input_params:
        return anything
    try:
        listed = msgspec.json.decode(unpacked_json(input_params), type=list[Any])
        params = [decode(ParamItem, msgspec.json.encode(item)) for item in listed]
    except (msgspec.DecodeError, BadMessage, UnicodeDecodeError) as error:
        log.warning("an action's parameters cannot be read", plugin=plugin, action=action, error=str(error))
        return anything
    properties = {param.name: _property(param) for param in params}
    return {"type": "object", "properties": properties, "required": [each.name for each in params if each.required]}


def _property(param: ParamItem) -> dict[str, Any]:
    kind = _TYPES.get(param.type)
    return ({"type": kind} if kind else {}) | ({"description": param.description} if param.description else {})
