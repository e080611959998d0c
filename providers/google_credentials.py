"""Whose name a Google Cloud call is made in, and where that is written down.

Source: https://cloud.google.com/docs/authentication/application-default-credentials.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from providers.errors import AuthenticationFailed
from providers.live_config import resolved
from providers.messages import AgentConfig

_TOKEN_ENDPOINT = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_TOKEN_PREFIX = "ya29."  # noqa: S105 - how Google's access tokens begin


class AccessToken(Struct, frozen=True, kw_only=True):
    """A token that somebody else keeps fresh. Its `repr` does not show it."""

    token: str

    def __repr__(self) -> str:
        return "AccessToken(***)"


class ApiKey(Struct, frozen=True, kw_only=True):
    """A key of Vertex AI's express mode: it belongs to a project, which need not be named. Hidden likewise."""

    key: str

    def __repr__(self) -> str:
        return "ApiKey(***)"


class CredentialsFile(Struct, frozen=True, kw_only=True):
    """A file with credentials of one of `TYPES`, read whenever a token is needed."""

    path: str


class CredentialsJson(Struct, frozen=True, kw_only=True):
    """The content of such a file. Hidden likewise."""

    text: str

    def __repr__(self) -> str:
        return "CredentialsJson(***)"


class Metadata(Struct, frozen=True, kw_only=True):
    """The machine's own account, on Google Cloud."""

    host: str


Source = AccessToken | ApiKey | CredentialsFile | CredentialsJson | Metadata


class _Format(Struct, frozen=True):
    type: str = "text"
    subject_token_field_name: str = ""


class SubjectSource(Struct, frozen=True):
    """Where an identity provider leaves its token: a file or an address; other kinds are not supported."""

    file: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    format: _Format = _Format()


class StoredCredentials(Struct, frozen=True, kw_only=True):
    """What a credentials file holds, of any of `TYPES`. Its `repr` shows no secret."""

    type: str = ""
    project_id: str = ""
    quota_project_id: str = ""
    client_email: str = ""
    private_key_id: str = ""
    private_key: str = ""
    token_uri: str = _TOKEN_ENDPOINT
    client_id: str = ""
    client_secret: str = ""
    refresh_token: str = ""
    audience: str = ""
    subject_token_type: str = ""
    token_url: str = ""
    credential_source: SubjectSource = SubjectSource()
    service_account_impersonation_url: str = ""
    source_credentials: StoredCredentials | None = None
    delegates: tuple[str, ...] = ()

    @property
    def who(self) -> str:
        """The account, for messages."""
        return f"{self.type} {self.client_email or self.audience or self.client_id}".strip()

    def __repr__(self) -> str:
        return f"StoredCredentials({self.who})"


TYPES = ("service_account", "authorized_user", "external_account", "impersonated_service_account")


def find_source(config: AgentConfig, live: Callable[[str], str], *, has_project: bool) -> Source:
    """Where the agent's credentials are: its `api_key_env`, the live settings, the environment, this machine.

    `live` gives a live setting's value, or an empty text. Raises `AuthenticationFailed`.
    """
    if config.api_key_env:
        return _of_secret(config.api_key_env, resolved("api_key_env", f"env:{config.api_key_env}"))
    if secret := live("api_key"):
        return _of_secret("api_key", secret)
    if path := live("credentials_file"):
        return CredentialsFile(path=path)
    if token := _variable("GOOGLE_ACCESS_TOKEN"):
        return AccessToken(token=_printable("GOOGLE_ACCESS_TOKEN", token))
    if path := _variable("GOOGLE_APPLICATION_CREDENTIALS"):
        return CredentialsFile(path=path)
    if not has_project and (key := _variable("GOOGLE_API_KEY")):
        return ApiKey(key=_printable("GOOGLE_API_KEY", key))
    usual = _usual_file()
    if usual.is_file():
        return CredentialsFile(path=str(usual))
    return Metadata(host=_variable("GCE_METADATA_HOST") or "metadata.google.internal")


def read_credentials(source: CredentialsFile | CredentialsJson) -> StoredCredentials:
    """What the source holds. Blocks for as long as a small file takes. Raises `AuthenticationFailed`."""
    where = source.path if isinstance(source, CredentialsFile) else "the credentials' JSON"
    try:
        content = Path(source.path).read_bytes() if isinstance(source, CredentialsFile) else source.text.encode()
        found = msgspec.json.decode(content, type=StoredCredentials)
    except OSError as error:
        said = (
            f"{where}: {error.strerror or type(error).__name__}: set GOOGLE_APPLICATION_CREDENTIALS to a readable file"
        )
        raise AuthenticationFailed(said) from error
    except (msgspec.DecodeError, UnicodeError):
        # Without its cause, which may quote the content.
        raise AuthenticationFailed(f"{where} is no Google credentials file: it has to be JSON with a `type`") from None
    if found.type not in TYPES:
        raise AuthenticationFailed(
            f"{where}: credentials of type {found.type!r} are not supported: there are {', '.join(TYPES)}; or set "
            "GOOGLE_ACCESS_TOKEN"
        )
    return found


def _of_secret(name: str, secret: str) -> Source:
    """Keys, tokens and whole files look different, so one setting takes them all."""
    if secret.lstrip().startswith("{"):
        return CredentialsJson(text=secret)
    secret = _printable(name, secret)
    return AccessToken(token=secret) if secret.startswith(_TOKEN_PREFIX) else ApiKey(key=secret)


def _printable(variable: str, secret: str) -> str:
    if not (secret.isascii() and secret.isprintable()):
        raise AuthenticationFailed(
            f"{variable} has characters that no key has (line breaks or non-ASCII): set it again"
        )
    return secret


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()


def _usual_file() -> Path:
    folder = _variable("CLOUDSDK_CONFIG")
    return (Path(folder) if folder else Path.home() / ".config" / "gcloud") / "application_default_credentials.json"
