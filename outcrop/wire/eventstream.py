"""Frames of application/vnd.amazon.eventstream.

total_len u32 | headers_len u32 | crc32 of the first 8 bytes | headers | payload | crc32 of everything before, all big
endian; a header is name_len u8, name, type 7 (string), value_len u16, value. CRC-32 is zlib's.
"""

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
from botocore.model import StructureShape

from outcrop.errors import OutcropError
from outcrop.wire.rest_json import to_json

CONTENT_TYPE = "application/vnd.amazon.eventstream"


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame."""
    encoded = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(encoded) + len(payload), len(encoded))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + encoded + payload
    return message + struct.pack("!I", zlib.crc32(message))


def event(union: StructureShape, name: str, members: Mapping[str, Any]) -> bytes:
    """An event of the stream's union, its payload as the model lays it out."""
    shape = union.members[name]
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, msgspec.json.encode(to_json(members, shape)))


def failure(union: StructureShape, error: OutcropError) -> bytes:
    """An error after the stream has begun: the declared exception, else an undeclared one with its name."""
    for name, shape in union.members.items():
        if shape.name == error.code:
            headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
            return frame(headers, msgspec.json.encode({"message": error.message, **error.members}))
    return frame({":message-type": "error", ":error-code": error.code, ":error-message": error.message[:1000]}, b"")
