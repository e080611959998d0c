"""A real small OpenID Connect issuer: discovery, keys, and tokens of every kind."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "shoal"


class Issuer:
    """Serves on a free loopback port. `keys` are those that it publishes, by id."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.is_down = False
        self.says_issuer = ""
        self.private: dict[str, Any] = {
            "rsa": rsa.generate_private_key(65537, 2048),
            "ec": ec.generate_private_key(ec.SECP256R1()),
        }
        self.published = ["rsa", "ec"]
        self.keys_url = ""
        self.uses: dict[str, str] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def token(
        self, key: str = "rsa", *, algorithm: str = "", header: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        """A token for `AUDIENCE`; a claim, or a field of the head, that is None is left out."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 300}
        body = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        chosen = algorithm or ("RS256" if key == "rsa" else "ES256")
        fields = {name: value for name, value in {"kid": key, **(header or {})}.items() if value is not None}
        return jwt.encode(body, self.private[key], algorithm=chosen, headers=fields)

    def public_pem(self, key: str = "rsa") -> bytes:
        """A public key as a file."""
        pem: bytes = (
            self.private[key]
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        return pem

    def _jwks(self) -> dict[str, Any]:
        keys = []
        for name in self.published:
            key = self.private[name].public_key()
            kind = RSAAlgorithm if isinstance(key, rsa.RSAPublicKey) else ECAlgorithm
            keys.append({**json.loads(kind.to_jwk(key)), "kid": name, "use": self.uses.get(name, "sig")})
        unsigned = RSAAlgorithm.to_jwk(self.private["rsa"].public_key(), as_dict=True)
        keys.append({**unsigned, "kid": "unsigned", "alg": "none"})
        keys.append({"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "kid": "shared"})
        return {"keys": keys}

    def _document(self, path: str) -> dict[str, Any] | None:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.says_issuer or self.url, "jwks_uri": self.keys_url or f"{self.url}/keys"}
        return self._jwks() if path == "/keys" else None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            """Answers GET."""

            def do_GET(self) -> None:
                issuer.requests.append(self.path)
                document = None if issuer.is_down else issuer._document(self.path)
                body = json.dumps(document).encode()
                self.send_response(500 if document is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler
