"""Declaring MCP servers and webhook tools: ark's JSON, and what is refused at the edge."""

from __future__ import annotations

import pytest

from worker.errors import BadSetting
from worker.tools import McpServer, WebhookTool, check_mcp_servers, parse_mcp_servers, parse_webhook_tools


def test_arks_mcp_json_is_read() -> None:
    """The field names an ark operator writes arrive in the struct, and unknown ones do no harm."""
    text = """[{"name": "search", "url": "https://s.example/mcp", "authType": "bearer", "tokenEnvVar": "T", "new": 1},
              {"name": "files", "url": "http://f.example", "authType": "mtls", "certFile": "c", "keyFile": "k"}]"""

    search, files = parse_mcp_servers(text)

    assert (search.auth_type, search.token_env_var, search.kind) == ("bearer", "T", "http")
    assert (files.cert_file, files.key_file) == ("c", "k")


def test_arks_webhook_json_is_read() -> None:
    """`inputSchema` may be JSON text, as ark has it, or an object; empty means any object."""
    text = """[{"name": "a", "url": "http://h/x",
                "inputSchema": "{\\"type\\": \\"object\\", \\"required\\": [\\"q\\"]}"},
              {"name": "b", "url": "http://h/x", "inputSchema": {"type": "object"}}, {"name": "c", "url": "http://h"}]"""

    schemas = [tool.schema for tool in parse_webhook_tools(text)]

    assert schemas == [{"type": "object", "required": ["q"]}, {"type": "object"}, {"type": "object"}]


def test_empty_text_means_no_tools() -> None:
    """An unset variable is an empty string."""
    assert parse_mcp_servers("") == ()
    assert parse_webhook_tools(" ") == ()


@pytest.mark.parametrize(
    "text", ["{", '{"name": "x"}', '[{"url": "http://h"}]', '[{"name": "x", "authType": "basic"}]']
)
def test_unreadable_mcp_json_has_arks_text(text: str) -> None:
    """Operators look for ark's own words."""
    with pytest.raises(BadSetting, match=r"^invalid AGENT_MCP_SERVERS JSON: .+"):
        parse_mcp_servers(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "Input data was truncated"),
        ('[{"name": "a", "url": "http://h"}, {"name": "a", "url": "http://h"}]', "name 'a' is used 2 times"),
        ('[{"name": "a", "url": "ftp://h"}]', "use http://"),
        ('[{"name": "a", "url": "http://h:port/"}]', "use http://"),
        ('[{"name": "a b", "url": "http://h"}]', "1 to 64 letters"),
        ('[{"name": "a", "url": "http://h", "method": "FETCH"}]', "use one of"),
        ('[{"name": "a", "url": "http://h", "timeoutSeconds": 0}]', "time limit of 0"),
        ('[{"name": "a", "url": "http://h", "inputSchema": "{"}]', "bad inputSchema"),
        ('[{"name": "a", "url": "http://h", "inputSchema": "[]"}]', "use a JSON Schema object"),
        ('[{"name": "a", "url": "http://h", "inputSchema": {"type": "array"}}]', "always of type 'object'"),
        ('[{"name": "a", "url": "http://h", "inputSchema": {"properties": 1}}]', "no JSON Schema"),
        ('[{"name": "a", "url": "http://h", "inputSchema": {"$ref": "http://evil/s"}}]', "another document"),
    ],
)
def test_impossible_webhook_tools_are_refused(text: str, reason: str) -> None:
    """What could never work is said at start, with the tool, the value and what is allowed."""
    with pytest.raises(BadSetting, match=r"^invalid AGENT_WEBHOOK_TOOLS JSON: ") as raised:
        parse_webhook_tools(text)
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (McpServer(name="", url="http://h"), "no letter or digit"),
        (McpServer(name="a"), "use http://"),
        (McpServer(name="a", transport="stdio"), "no command"),
        (McpServer(name="a", command="x", url="http://h"), "both a command and a url"),
        (McpServer(name="a", command="x", transport="sse"), "goes with 'stdio'"),
        (McpServer(name="a", url="http://h", timeout_s=1e9), "time limit"),
        (McpServer(name="a", url="http://h", allow=("x",), deny=("x",)), "both allows and denies x"),
    ],
)
def test_impossible_mcp_servers_are_refused(server: McpServer, reason: str) -> None:
    """What could never work is said at start."""
    with pytest.raises(BadSetting, match="MCP server") as raised:
        check_mcp_servers([server])
    assert reason in str(raised.value)


def test_secrets_are_not_in_reprs_or_errors() -> None:
    """Passwords and query tokens of URLs, and values for a server's environment, stay out of text."""
    server = McpServer(name="a", command="run", env={"API_KEY": "s3cret-value"})
    webhook = WebhookTool(name="b", url="http://user:s3cret-value@host/x?token=s3cret-value")
    with pytest.raises(BadSetting) as raised:
        check_mcp_servers([McpServer(name="c", url="ftp://user:s3cret-value@host/x?token=s3cret-value")])

    assert "s3cret-value" not in f"{server!r} {webhook!r} {raised.value}"
