"""Signatures and event streams of AWS, as AWS's own library makes and reads them."""

from __future__ import annotations

import binascii
import random
import string
import struct
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest

from providers.aws_event_stream import AwsEventStreamDecoder, BrokenEventStreamError, read_message
from providers.aws_keys import AwsKeys
from providers.aws_sigv4 import Scope, path_part, signed_headers
from tests import aws_frames

auth = pytest.importorskip("botocore.auth")
awsrequest = pytest.importorskip("botocore.awsrequest")
credentials = pytest.importorskip("botocore.credentials")
eventstream = pytest.importorskip("botocore.eventstream")

_KEY_CHARS = string.ascii_letters + string.digits + "/+="
_ODD_CHARS = string.ascii_letters + string.digits + ":/.-_~ %+@!*'()äß日,;=$&"


def _text(rng: random.Random, chars: str, most: int, least: int = 1) -> str:
    return "".join(rng.choices(chars, k=rng.randint(least, most)))


def _request(rng: random.Random) -> tuple[str, str, dict[str, str], bytes]:
    host = rng.choice(
        ["bedrock-runtime.eu-west-1.amazonaws.com", "127.0.0.1:8080", "[::1]:9000", "box:443", "sts.local"]
    )
    parts = [path_part(_text(rng, _ODD_CHARS, 40)) for _ in range(rng.randint(0, 4))]
    url = f"{rng.choice(['https', 'http'])}://{host}/" + "/".join(parts) + rng.choice(["", "", "/"])
    pairs = [f"{path_part(_text(rng, _ODD_CHARS, 9))}={path_part(_text(rng, _ODD_CHARS, 9, 0))}" for _ in range(3)]
    if rng.random() < 0.5:
        url += "?" + "&".join(pairs[: rng.randint(1, 3)])
    headers = {"content-type": "application/json", "X-Odd-Header": f"  {_text(rng, 'ab  c', 12)}  "}
    return rng.choice(["POST", "GET", "PUT"]), url, headers, rng.randbytes(rng.randint(0, 300))


def test_signatures() -> None:
    """For many random requests, every header is what AWS's library would have sent."""
    rng = random.Random(20261121)
    for _ in range(400):
        method, url, headers, body = _request(rng)
        token = _text(rng, _KEY_CHARS, 90) if rng.random() < 0.5 else ""
        keys = AwsKeys(
            access_key_id="AKIA" + _text(rng, string.ascii_uppercase, 16),
            secret_access_key=_text(rng, _KEY_CHARS, 40),
            session_token=token,
        )
        scope = Scope(region=rng.choice(["us-east-1", "eu-central-1"]), service=rng.choice(["bedrock", "sts"]))
        now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randint(0, 40_000_000))
        ours = signed_headers(keys, scope, method, url, headers, body, now)
        theirs = _signed_by_botocore(keys, scope, method, url, headers, body, now)
        assert {name.lower(): value for name, value in ours.items()} == theirs, url


def _signed_by_botocore(
    keys: AwsKeys, scope: Scope, method: str, url: str, headers: dict[str, str], body: bytes, now: datetime
) -> dict[str, str]:
    request = awsrequest.AWSRequest(method=method, url=url, headers=headers, data=body)
    given = credentials.Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token or None)
    with mock.patch.object(auth, "get_current_datetime", return_value=now):
        auth.SigV4Auth(given, scope.service, scope.region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def test_keys_are_not_shown() -> None:
    """Neither the secret nor the token is in the `repr`."""
    shown = repr(AwsKeys(access_key_id="AKIAEXAMPLE12345", secret_access_key="s3cr3t", session_token="t0k3n"))
    assert "s3cr3t" not in shown
    assert "t0k3n" not in shown
    assert "AKIAEXAMPLE12345" not in shown


def _random_message(rng: random.Random) -> bytes:
    sizes = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
    headers = b""
    for number in range(rng.randint(0, 6)):
        kind = rng.randint(0, 9)
        value = "wört".encode() * rng.randint(0, 9) if kind == 7 else rng.randbytes(sizes.get(kind, rng.randint(0, 30)))
        headers += aws_frames.header(f":name-{number}", kind, value)
    return aws_frames.message(headers, rng.randbytes(rng.randint(0, 500)))


def test_messages_cut_anywhere() -> None:
    """However a stream of random messages is cut, they are those that AWS's library reads."""
    rng = random.Random(7)
    stream = b"".join(_random_message(rng) for _ in range(60))
    buffer = eventstream.EventStreamBuffer()
    buffer.add_data(stream)
    theirs: list[Any] = list(buffer)
    for size in (1, 11, 12, 4096, len(stream)):
        decoder = AwsEventStreamDecoder()
        pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
        ours = [read_message(message) for piece in pieces for message in decoder.feed(piece)]
        assert [message.payload for message in ours] == [message.payload for message in theirs]
        texts = [{k: v for k, v in message.headers.items() if isinstance(v, str)} for message in theirs]
        for found, wanted, raw in zip(ours, texts, theirs, strict=True):
            assert {k: v for k, v in found.headers.items() if k in wanted} == wanted, raw.headers


@pytest.mark.parametrize("at", [0, 5, 9, 20, -1])
def test_damaged_messages(at: int) -> None:
    """A bit that flipped anywhere is noticed."""
    message = bytearray(
        aws_frames.message(aws_frames.header(":event-type", 7, b"messageStop"), b'{"stopReason":"end_turn"}')
    )
    message[at] ^= 0x10
    with pytest.raises(BrokenEventStreamError, match="checksum"):
        AwsEventStreamDecoder().feed(bytes(message))


def test_impossible_messages() -> None:
    """Lengths and headers that make no sense are refused, though their checksums are right."""
    start = struct.pack(">II", 14, 0)
    with pytest.raises(BrokenEventStreamError, match="cannot have"):
        AwsEventStreamDecoder().feed(start + struct.pack(">I", binascii.crc32(start)))
    start = struct.pack(">II", 2**31, 0)
    with pytest.raises(BrokenEventStreamError, match="too many"):
        AwsEventStreamDecoder().feed(start + struct.pack(">I", binascii.crc32(start)))
    for headers in (
        b"\x05abc",
        aws_frames.header("name", 7, b"value")[:-2],
        aws_frames.header("name", 44, b"x"),
        aws_frames.header("n", 7, b"\xff"),
    ):
        with pytest.raises(BrokenEventStreamError):
            read_message(aws_frames.message(headers, b"{}"))
    assert AwsEventStreamDecoder().flush() == []
