"""From answers of many vendors to the one tree of errors."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from providers.calls import Call
from providers.errors import (
    AuthenticationFailed,
    ContextTooLong,
    InvalidRequest,
    Overloaded,
    ProviderError,
    RateLimited,
    Unavailable,
)
from providers.http_errors import ErrorBody, error_for, read_error_body, redact, secrets_of


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (
            400,
            b'{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: required"}}',
            InvalidRequest,
            "max_tokens: required",
        ),
        (
            400,
            b'{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 208310 tokens"}}',
            ContextTooLong,
            "208310",
        ),
        (
            400,
            b'{"error":{"message":"The maximum context length is 8192 tokens.","code":"context_length_exceeded"}}',
            ContextTooLong,
            "8192",
        ),
        (
            400,
            b'{"error":{"code":400,"message":"exceeds the available context size","type":"exceed_context_size_error"}}',
            ContextTooLong,
            "available context",
        ),
        (
            400,
            b'{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low"}}',
            AuthenticationFailed,
            "credit balance",
        ),
        (401, b'{"error":{"message":"no","code":"invalid_api_key"}}', AuthenticationFailed, "no"),
        (
            403,
            b'{"type":"error","error":{"type":"permission_error","message":"not yours"}}',
            AuthenticationFailed,
            "not yours",
        ),
        (404, b'{"error":"model \'x\' not found, try pulling it first"}', InvalidRequest, "try pulling"),
        (405, b"", InvalidRequest, "405"),
        (408, b"", Unavailable, "408"),
        (409, b"", Unavailable, "409"),
        (
            413,
            b'{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}',
            InvalidRequest,
            "maximum size",
        ),
        (422, b'{"detail":[{"loc":["body","model"],"msg":"field required"}]}', InvalidRequest, "field required"),
        (
            422,
            b'{"object":"error","message":"extra fields","type":"invalid_request_error"}',
            InvalidRequest,
            "extra fields",
        ),
        (
            429,
            b'{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}',
            RateLimited,
            "Rate limit reached",
        ),
        (
            429,
            b'{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}',
            AuthenticationFailed,
            "quota",
        ),
        (
            429,
            b'[{"error":{"code":429,"message":"Resource exhausted","status":"RESOURCE_EXHAUSTED"}}]',
            RateLimited,
            "Resource exhausted",
        ),
        (
            500,
            b'{"type":"error","error":{"type":"api_error","message":"Internal server error"}}',
            Unavailable,
            "Internal",
        ),
        (500, b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', Overloaded, "Overloaded"),
        (502, b"<html><body><h1>Bad Gateway</h1></body></html>", Unavailable, "Bad Gateway"),
        (503, b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}', Overloaded, "Loading"),
        (529, b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', Overloaded, "Overloaded"),
        (599, b"\xff\xfe", Unavailable, "599"),
    ],
)
def test_status_and_body(status: int, body: bytes, kind: type[ProviderError], said: str) -> None:
    """The class follows status and body, and the message repeats what the server said."""
    error = error_for("acme", status, read_error_body(body))
    assert type(error) is kind
    assert said in str(error)
    assert str(error).startswith("acme API error: ")
    assert (error.status, error.provider) == (status, "acme")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (ErrorBody(kind="overloaded_error", message="Overloaded"), Overloaded),
        (ErrorBody(kind="rate_limit_error"), RateLimited),
        (ErrorBody(kind="api_error"), Unavailable),
        (ErrorBody(kind="authentication_error"), AuthenticationFailed),
        (ErrorBody(kind="invalid_request_error"), InvalidRequest),
        (ErrorBody(message="out of memory", status=500), Unavailable),
        (ErrorBody(message="something"), Unavailable),
    ],
)
def test_error_inside_a_stream(body: ErrorBody, kind: type[ProviderError]) -> None:
    """Without a status, the vendor's own word decides."""
    assert type(error_for("acme", None, body)) is kind


def _call(headers: Mapping[str, str]) -> Call:
    return Call(provider="acme", url="http://localhost", headers=headers)


def test_secrets_stay_out_of_messages() -> None:
    """Neither the key that was sent nor anything that looks like one is repeated."""
    key = "my-own-format-0123456789"
    secrets = secrets_of(_call({"Authorization": f"Bearer {key}", "content-type": "application/json"}))
    body = f'{{"error": {{"message": "Incorrect API key provided: {key}, or sk-proj-abcdefghijkl. See the docs."}}}}'
    message = str(error_for("acme", 401, read_error_body(body.encode()), secrets=secrets))
    assert key not in message
    assert "abcdefghijkl" not in message
    assert "See the docs." in message


def test_a_secret_is_not_cut_before_it_is_found() -> None:
    """Half a secret would not be recognized: neither in JSON nor in a page of text."""
    key = "my-own-format-0123456789"
    for body in (f"{'x' * 490} {key}", f'{{"message": "{"x" * 490} {key}"}}'):
        message = str(
            error_for("acme", 500, read_error_body(body.encode()), secrets=secrets_of(_call({"api-key": key})))
        )
        assert "my-own" not in message


def test_secrets_of_a_body() -> None:
    """What a form holds is kept out of messages, as it is and as the form has it."""
    call = Call(provider="acme", url="http://localhost", secrets=("a b/c=d",))
    said = redact("client_secret=a+b%2Fc%3Dd was refused: a b/c=d", secrets_of(call))
    assert said == "client_secret=*** was refused: ***"


def test_long_bodies_are_cut() -> None:
    """A megabyte of error is not a message."""
    assert len(str(error_for("acme", 500, read_error_body(b"x" * 1_000_000)))) < 600


@pytest.mark.parametrize("body", [b'{"error":{"message":"caf\xe9"}}', b'{"error":' + b"[" * 5000 + b"]" * 5000 + b"}"])
def test_errors_that_are_no_json(body: bytes) -> None:
    """A body in another encoding, or nested without end, is shown as the text that it is."""
    error = error_for("acme", 400, read_error_body(body))
    assert type(error) is InvalidRequest
    assert "error" in str(error)
    assert len(str(error)) < 600


def test_headers_of_gateways_are_secret_too() -> None:
    """Keys have many names, and stand behind a scheme's name or alone."""
    headers = {"cf-aig-authorization": "Bearer gateway-1234", "Ocp-Apim-Subscription-Key": "azure-5678"}
    secrets = secrets_of(_call({**headers, "authorization": "Basic bWU6c2VjcmV0", "content-type": "text/plain"}))
    assert redact("gateway-1234 azure-5678 bWU6c2VjcmV0 text/plain", secrets) == "*** *** *** text/plain"
