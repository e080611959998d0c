"""AWS access keys, and the forms in which AWS hands them out. Pure."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from providers.errors import AuthenticationFailed


class AwsKeys(Struct, frozen=True, kw_only=True):
    """An access key. Its `repr` shows no secret."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""

    def __repr__(self) -> str:
        return f"AwsKeys({self.access_key_id[:4]}…)"


class IssuedKeys(Struct, frozen=True, kw_only=True):
    """Keys, and until when they are good."""

    keys: AwsKeys
    expires_at: float | None = None
    """Unix seconds; None: until somebody changes them."""


class _Document(Struct, rename="pascal"):
    access_key_id: str
    secret_access_key: str
    token: str = ""
    session_token: str = ""
    """The name of `token` in what a program prints and STS answers."""
    expiration: str = ""


_document_decoder = msgspec.json.Decoder(_Document)
_XML_FIELD = re.compile(r"<(AccessKeyId|SecretAccessKey|SessionToken|Expiration)>([^<]*)</")


def keys_from_json(data: bytes, source: str) -> IssuedKeys:
    """From the JSON of the metadata services and of credential programs. Raises `AuthenticationFailed`."""
    try:
        document = _document_decoder.decode(data)
    except msgspec.DecodeError as error:
        # The decoder's message names a field, never a value.
        raise AuthenticationFailed(f"what {source} answered are no AWS credentials: {error}") from error
    except (UnicodeDecodeError, RecursionError):
        document = None
    if document is None:  # without a cause: it may quote what came
        raise AuthenticationFailed(f"what {source} answered are no AWS credentials: it is no JSON")
    return _issued(document, source)


def keys_from_xml(data: bytes, source: str) -> IssuedKeys:
    """From the XML of the token service. Raises `AuthenticationFailed`."""
    fields = {name: html.unescape(value) for name, value in _XML_FIELD.findall(data.decode("utf-8", "replace"))}
    try:
        document = msgspec.convert(fields, _Document)
    except msgspec.ValidationError as error:
        raise AuthenticationFailed(f"what {source} answered are no AWS credentials: {error}") from error
    return _issued(document, source)


def _issued(document: _Document, source: str) -> IssuedKeys:
    keys = AwsKeys(
        access_key_id=document.access_key_id,
        secret_access_key=document.secret_access_key,
        session_token=document.token or document.session_token,
    )
    try:
        expires_at = _moment(document.expiration) if document.expiration else None
    except ValueError as error:
        said = f"the credentials of {source} expire at {document.expiration!r}, which is no time"
        raise AuthenticationFailed(said) from error
    return IssuedKeys(keys=keys, expires_at=expires_at)


def _moment(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
