"""MCP servers that ask for a client certificate."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from providers.transport import Transport
from tests.tools.tool_servers import call, mcp_over_http
from worker.tools import McpServer
from worker.tools.build import build_catalogue

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """One self-signed certificate that server and client both show and trust; gives its path and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = tmp_path / "client.pem", tmp_path / "client.key"
    certificate_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate_path))
    return str(certificate_path), str(key_path)


async def test_the_certificate_is_shown(http: Transport, certificate: tuple[str, str]) -> None:
    """A server that asks for one answers with it, and not without."""
    async with mcp_over_http("http", *certificate) as (url, _):
        servers = [
            McpServer(name="with", url=url, auth_type="mtls", cert_file=certificate[0], key_file=certificate[1]),
            McpServer(name="without", url=url),
        ]
        async with build_catalogue(http, mcp_servers=servers, with_queue=False, environ={}) as catalogue:
            outcome = await call(catalogue, "with__add", '{"a": 1, "b": 2}')

            assert set(catalogue.problems()) == {"without"}
    assert outcome.content == "3"


async def test_the_certificate_is_shown_in_arks_dialect(http: Transport, certificate: tuple[str, str]) -> None:
    """The plain-HTTP dialect uses the same credentials."""

    async def listing(_: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = {"tools": [{"name": "find"}]}
        return web.json_response(body)

    asking = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate[0])
    asking.load_cert_chain(*certificate)
    asking.verify_mode = ssl.CERT_REQUIRED
    app = web.Application()
    app.router.add_post("/tools/list", listing)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=asking).start()
    server = McpServer(
        name="db",
        url=f"https://127.0.0.1:{runner.addresses[0][1]}",
        transport="ark",
        auth_type="mtls",
        cert_file=certificate[0],
        key_file=certificate[1],
    )

    async with build_catalogue(http, mcp_servers=[server], with_queue=False, environ={}) as catalogue:
        problems, names = catalogue.problems(), [spec.name for spec in catalogue.specs()]
    await http.aclose()
    await runner.cleanup()

    assert (problems, names) == ({}, ["db__find"])


async def test_a_certificate_that_cannot_be_read_is_named(http: Transport, tmp_path: Path) -> None:
    """The paths are in the reason; the server is retried, since certificates are renewed."""
    missing = str(tmp_path / "none.pem")
    server = McpServer(name="s", url="https://127.0.0.1:9/", auth_type="mtls", cert_file=missing, key_file=missing)

    async with build_catalogue(http, mcp_servers=[server], with_queue=False, environ={}) as catalogue:
        assert f'MCP server "s" auth setup failed: loading client certificate {missing}' in catalogue.problems()["s"]
