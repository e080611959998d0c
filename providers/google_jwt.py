"""The signed assertion by which a Google service account asks for an access token (RFC 7523). Pure.

Source: https://developers.google.com/identity/protocols/oauth2/service-account#httprest.
"""

from __future__ import annotations

import base64

import msgspec

from providers.errors import AuthenticationFailed

AUDIENCE = "https://oauth2.googleapis.com/token"
"""Who it is for, whatever the address of the token endpoint is."""

_LIFETIME_S = 3600


def signed_assertion(email: str, key_id: str, private_key: str, scope: str, now: float) -> str:
    """A JWT, signed RS256 with the account's key (PEM). `now` is in Unix seconds; it is good for an hour.

    Raises `AuthenticationFailed` if the key is none, or the `cryptography` package is not installed.
    """
    header = {"alg": "RS256", "typ": "JWT"} | ({"kid": key_id} if key_id else {})
    issued_at = int(now)
    claims = {"iss": email, "scope": scope, "aud": AUDIENCE, "iat": issued_at, "exp": issued_at + _LIFETIME_S}
    content = f"{_encoded(msgspec.json.encode(header))}.{_encoded(msgspec.json.encode(claims))}"
    return f"{content}.{_encoded(_signature(private_key, content.encode()))}"


def _signature(private_key: str, content: bytes) -> bytes:
    try:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa
    except ImportError as error:
        raise AuthenticationFailed(
            "signing in as a Google service account needs the cryptography package: pip install 'shoal[vertex]'"
        ) from error
    try:
        key = serialization.load_pem_private_key(private_key.encode(), password=None)
    except (ValueError, TypeError):
        key = None  # what was wrong with it may quote it
    if not isinstance(key, rsa.RSAPrivateKey):
        raise AuthenticationFailed("private_key of the Google service account is no RSA key in PEM form")
    return key.sign(content, padding.PKCS1v15(), hashes.SHA256())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
