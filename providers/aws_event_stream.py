"""AWS's binary event stream (`application/vnd.amazon.eventstream`): from bytes to messages. Pure.

Source: https://smithy.io/2.0/aws/amazon-eventstream.html. A message is a prelude (length of the message, length of its
headers, CRC of both), headers, a payload, and a CRC of all before it; numbers are big-endian.
"""

from __future__ import annotations

import binascii
import struct

from msgspec import Struct

_PRELUDE = struct.Struct(">III")
_CRC_BYTES = 4
_MOST_MESSAGE_BYTES = 24 * 1024 * 1024
_MOST_HEADER_BYTES = 128 * 1024

_STRING = 7
_BYTES = 6
_FIXED_BYTES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Sizes of the header values of the other types: true, false, byte, short, integer, long, timestamp, UUID."""


class BrokenEventStreamError(ValueError):
    """What came is no event stream, or was damaged on the way."""


class AwsMessage(Struct, frozen=True):
    """One message: its text headers (`:message-type`, `:event-type`, …), and its payload."""

    headers: dict[str, str]
    payload: bytes


class AwsEventStreamDecoder:
    """Takes the bytes as they arrive, cut anywhere, and returns the messages that are complete, unread.

    `feed` checks length and both checksums; `read_message` takes a message apart.
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Each message that this chunk completes. Raises `BrokenEventStreamError`."""
        rest = self._rest
        rest += chunk
        messages: list[bytes] = []
        start = 0
        while len(rest) - start >= _PRELUDE.size:
            length = _checked_length(rest, start)
            if len(rest) - start < length:
                break
            message = bytes(rest[start : start + length])
            if binascii.crc32(message[:-_CRC_BYTES]) != int.from_bytes(message[-_CRC_BYTES:], "big"):
                raise BrokenEventStreamError("a message's checksum is wrong")
            messages.append(message)
            start += length
        del rest[:start]
        return messages

    def flush(self) -> list[bytes]:
        """Nothing: a message that is not complete was cut."""
        self._rest.clear()
        return []


def read_message(message: bytes) -> AwsMessage:
    """Headers and payload of a whole message. Raises `BrokenEventStreamError` if its headers make no sense."""
    _, header_bytes, _ = _PRELUDE.unpack_from(message)
    end = _PRELUDE.size + header_bytes
    return AwsMessage(_headers(message[_PRELUDE.size : end]), message[end:-_CRC_BYTES])


def _checked_length(data: bytearray, start: int) -> int:
    length, header_bytes, crc = _PRELUDE.unpack_from(data, start)
    if binascii.crc32(data[start : start + 8]) != crc:
        raise BrokenEventStreamError("a message's prelude has a wrong checksum: this is no event stream")
    if length > _MOST_MESSAGE_BYTES or header_bytes > _MOST_HEADER_BYTES:
        raise BrokenEventStreamError(f"a message has {length} bytes, {header_bytes} of them headers: too many")
    if length < _PRELUDE.size + header_bytes + _CRC_BYTES:
        raise BrokenEventStreamError(f"a message of {length} bytes cannot have {header_bytes} bytes of headers")
    return int(length)


def _headers(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            size = data[at]
            name, kind = data[at + 1 : at + 1 + size].decode(), data[at + 1 + size]
            at += 2 + size
            if kind in (_STRING, _BYTES):
                (length,) = struct.unpack_from(">H", data, at)
                at += 2
            else:
                length = _FIXED_BYTES[kind]
            if at + length > len(data):
                raise BrokenEventStreamError("a header is longer than all headers together")
            if kind == _STRING:
                found[name] = data[at : at + length].decode()
            at += length
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise BrokenEventStreamError(f"a message's headers cannot be read ({type(error).__name__})") from error
    return found
