"""`plugin.manifest.json` and `config.schema.json`: what is taken, and what is said of the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.agent_plugins.plugin_folders import manifest
from worker.agent_plugins.config_schema import ConfigSchema
from worker.agent_plugins.errors import BadPlugin, BadPluginConfig
from worker.agent_plugins.manifest import read_manifest, unknown_scopes
from worker.agents.model import PermissionScope

HOOKS = (
    "pre_auth auth post_auth on_response data_collection studio_ui portal_ui agent object_hooks custom_endpoint "
    "resource_provider"
)


def read(**fields: Any) -> Any:
    """The manifest with these fields; a field of None is left out."""
    given = {name: value for name, value in manifest(**fields).items() if value is not None}
    return read_manifest(json.dumps(given).encode(), "m.json")


def test_both_forms_are_read() -> None:
    """The guide's form names a plugin type, the code's form capabilities: either makes an agent plugin."""
    assert read().hooks == ("agent",)
    assert read(capabilities=None, plugin_type="agent").hooks == ("agent",)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": ""}, "manifest ID is required"),
        ({"version": None}, "manifest version is required"),
        ({"name": " "}, "manifest name is required"),
        ({"capabilities": None}, "manifest must declare capabilities"),
        ({"capabilities": {}}, "manifest must declare at least one hook in capabilities.hooks"),
        ({"capabilities": {"hooks": ["nope"]}}, f"invalid hook type 'nope' in manifest - must be one of: [{HOOKS}]"),
        (
            {"capabilities": {"hooks": ["agent"], "primary_hook": "auth"}},
            "primary_hook 'auth' must be included in capabilities.hooks array",
        ),
        ({"capabilities": {"hooks": ["auth"]}}, "plugin does not support agent hook type (supports: [auth])"),
        ({"permissions": {"services": ["analytics.read"]}}, "scope 'analytics.read' is not available to plugins"),
    ],
)
def test_what_ai_studio_refuses_is_refused_in_its_words(fields: dict[str, Any], said: str) -> None:
    """Each rule of AI Studio's own validation, with its text."""
    plugin_id = fields.pop("id", "test-agent")
    with pytest.raises(BadPlugin) as refused:
        read(plugin_id=plugin_id, **fields)
    assert str(refused.value) == f"m.json: {said}"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"id": 1}', b"\xff", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    """Broken JSON, other JSON, other types and other encodings are one error with the file's name."""
    with pytest.raises(BadPlugin, match=r"m\.json: manifest"):
        read_manifest(text, "m.json")


def test_scopes_and_their_alias() -> None:
    """`tools.call` and `tools.execute` are the same; AI Studio's other scopes are no error, and are told apart."""
    for name in ("tools.call", "tools.execute"):
        assert read(permissions={"services": [name]}).scopes == {PermissionScope.TOOLS_EXECUTE}
    both = read(permissions={"services": ["kv.readwrite", "apps.read"]})
    assert (both.scopes, unknown_scopes(both)) == ({PermissionScope.KV_READWRITE}, ("apps.read",))
    asked = read(permissions=None, scopeRequests=[{"scope": "llms.proxy", "reason": "it talks"}])
    assert asked.scopes == {PermissionScope.LLMS_PROXY}


SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["word"],
    "properties": {
        "word": {"type": "string", "default": "hi"},
        "deep": {"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 3}}},
        "list": {"type": "array", "default": [1]},
    },
}


def test_defaults_are_filled_in_and_nobody_shares_them() -> None:
    """What is left out has the schema's default, inside objects too, and a plugin that changes its own changes no
    other's."""
    schema = ConfigSchema(SCHEMA)
    first = schema.with_defaults({})
    first["list"].append(2)
    assert schema.with_defaults({"deep": {}}) == {"word": "hi", "deep": {"n": 3}, "list": [1]}


def test_a_config_that_does_not_fit_says_where_and_why() -> None:
    """All that is wrong comes in one error; a default satisfies `required`."""
    schema = ConfigSchema(SCHEMA)
    schema.check("p", {})
    with pytest.raises(BadPluginConfig, match=r"config does not fit plugin 'p': .*deep\.n: \"x\" is not of type"):
        schema.check("p", {"deep": {"n": "x"}})


@pytest.mark.parametrize(
    "text", [b"[]", b"{", b'{"type": "array"}', b'{"type": "object", "properties": {"a": {"$ref": "http://x/y"}}}']
)
def test_what_is_no_schema_is_refused(text: bytes) -> None:
    """Other JSON, a schema of something else, and one that would have to be fetched."""
    with pytest.raises(BadPlugin, match=r"s\.json: "):
        ConfigSchema.read(text, "s.json")
