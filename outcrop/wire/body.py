"""Request bodies: small ones in memory, large ones on disk, checked while they arrive.

A gigabyte of training data passes through here; it is written once, in the folder that the storage will rename it
from. `aws-chunked` framing is taken off on the way.
"""

import base64
import hashlib
import os
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from outcrop.errors import S3Error

IN_MEMORY_BYTES = 1 << 20
LONGEST_CHUNK_LINE = 16 * 1024


class Digest(Protocol):
    """A running checksum."""

    def update(self, data: bytes, /) -> object: ...
    def digest(self) -> bytes: ...


class _Crc:
    """A running CRC in the shape of hashlib's digests."""

    def __init__(self, function: Callable[[bytes, int], int], size: int) -> None:
        self._function, self._size, self._value = function, size, 0

    def update(self, data: bytes) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def _crc32c() -> Digest:
    from awscrt import checksums

    return _Crc(checksums.crc32c, 4)


def _crc64nvme() -> Digest:
    from awscrt import checksums

    return _Crc(checksums.crc64nvme, 8)


CHECKSUMS: dict[str, Callable[[], Digest]] = {
    "crc32": lambda: _Crc(zlib.crc32, 4),
    "crc32c": _crc32c,
    "crc64nvme": _crc64nvme,
    "sha1": hashlib.sha1,
    "sha256": hashlib.sha256,
}


@dataclass
class Body:
    """A request's body, received whole. Either `data` or `path` is set; who keeps the file renames it away."""

    size: int
    sha256: str
    md5: bytes
    data: bytes | None = None
    path: Path | None = None
    checksums: dict[str, str] = field(default_factory=dict)
    """Checksums that the client gave and that were found right: algorithm -> base64."""

    def chunks(self, size: int = 1 << 20) -> Iterator[bytes]:
        """The bytes in pieces."""
        if self.data is not None:
            yield self.data
        elif self.path is not None:
            with self.path.open("rb") as file:
                while piece := file.read(size):
                    yield piece

    def read(self) -> bytes:
        """All bytes."""
        return b"".join(self.chunks())

    def discard(self) -> None:
        """Remove what is on disk and was not taken."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Receiver:
    """Takes a body in pieces; `finish` checks it and gives the Body."""

    def __init__(
        self, folder: Path, headers: Mapping[str, str], sign_chunk: Callable[[str, str], str] | None = None
    ) -> None:
        """`sign_chunk(previous signature, hash of the data)` verifies signed chunks; None when they are not signed."""
        self._headers = headers
        self._folder = folder
        self._pieces: list[bytes] = []
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._sha256, self._md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        self._size = 0
        named = headers.get("x-amz-trailer", "")
        names = [header for header in (*headers, named) if header.startswith("x-amz-checksum-")]
        self._expected = {
            name.removeprefix("x-amz-checksum-"): headers.get(name)
            for name in names
            if name.removeprefix("x-amz-checksum-") in CHECKSUMS
        }
        self._running = {name: CHECKSUMS[name]() for name in self._expected}
        self.is_chunked = headers.get("x-amz-content-sha256", "").startswith("STREAMING-") or (
            "aws-chunked" in headers.get("content-encoding", "")
        )
        self._decoder = _ChunkDecoder(self._take, sign_chunk) if self.is_chunked else None

    def feed(self, data: bytes) -> None:
        """The next piece as it came over HTTP."""
        if self._decoder is not None:
            self._decoder.feed(data)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        self._size += len(data)
        for digest in (self._sha256, self._md5, *self._running.values()):
            digest.update(data)
        if self._file is None and self._size > IN_MEMORY_BYTES:
            self._path = self._folder / f"receiving-{uuid.uuid4().hex}"
            self._file = self._path.open("xb")
            self._file.write(b"".join(self._pieces))
            self._pieces = []
        if self._file is not None:
            self._file.write(data)
        else:
            self._pieces.append(data)

    def abandon(self) -> None:
        """The body will not be used."""
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def finish(self) -> Body:
        """The whole body. Raises S3Error when a length or checksum that the client gave does not fit."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        trailers = self._decoder.trailers if self._decoder is not None else {}
        found = {name: base64.b64encode(digest.digest()).decode() for name, digest in self._running.items()}
        try:
            if self._decoder is not None:
                self._decoder.finish()
                declared = self._headers.get("x-amz-decoded-content-length")
                if declared is not None and declared != str(self._size):
                    raise S3Error("IncompleteBody", f"the body has {self._size} bytes; {declared} were announced", 400)
            for name, value in found.items():
                given = self._expected[name] or trailers.get(f"x-amz-checksum-{name}")
                if given is not None and given != value:
                    message = f"The {name.upper()} you specified ({given}) did not match the body's ({value})"
                    raise S3Error("BadDigest", message, 400)
            md5 = self._md5.digest()
            given_md5 = self._headers.get("content-md5")
            if given_md5 is not None:
                self._check_md5(given_md5, md5)
        except S3Error:
            self.abandon()
            raise
        data = b"".join(self._pieces) if self._path is None else None
        return Body(self._size, self._sha256.hexdigest(), md5, data, self._path, found)

    @staticmethod
    def _check_md5(given: str, found: bytes) -> None:
        try:
            expected = base64.b64decode(given, validate=True)
        except ValueError:
            expected = b""
        if len(expected) != 16:
            raise S3Error("InvalidDigest", f"The Content-MD5 you specified is not valid: {given!r}", 400)
        if expected != found:
            raise S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.", 400)


class _ChunkDecoder:
    """Takes `SIZE[;chunk-signature=S]\\r\\nDATA\\r\\n ... 0\\r\\ntrailer: value\\r\\n\\r\\n` apart."""

    def __init__(self, take: Callable[[bytes], None], sign_chunk: Callable[[str, str], str] | None) -> None:
        self._take, self._sign_chunk = take, sign_chunk
        self._buffer = b""
        self._left: int | None = None
        self._hash = hashlib.sha256()
        self._signature = ""
        self._previous = ""
        self._in_trailers = False
        self.trailers: dict[str, str] = {}

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while self._advance():
            pass

    def finish(self) -> None:
        if not self._in_trailers:
            raise S3Error("IncompleteBody", "the aws-chunked body ends before its last chunk", 400)
        for line in self._buffer.split(b"\r\n"):
            name, mark, value = line.decode("latin-1").partition(":")
            if mark:
                self.trailers[name.strip().lower()] = value.strip()

    def _advance(self) -> bool:
        """Take one piece off the buffer; False when it needs more bytes."""
        if self._in_trailers or not self._buffer:
            if len(self._buffer) > LONGEST_CHUNK_LINE:
                raise S3Error("MalformedTrailerError", "the trailers of the aws-chunked body are too long", 400)
            return False
        if self._left is None:
            line, mark, rest = self._buffer.partition(b"\r\n")
            if not mark:
                if len(self._buffer) > LONGEST_CHUNK_LINE:
                    raise S3Error("InvalidRequest", "a chunk of the aws-chunked body has no size line", 400)
                return False
            size, _, extension = line.decode("latin-1").partition(";")
            try:
                self._left = int(size, 16)
            except ValueError:
                raise S3Error("InvalidRequest", f"{size[:40]!r} is not the size of an aws-chunked chunk", 400) from None
            self._signature = extension.partition("chunk-signature=")[2]
            self._hash = hashlib.sha256()
            self._buffer = rest
            if self._left == 0:
                self._check()
                self._in_trailers = True
            return True
        if self._left > 0:
            piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
            self._left -= len(piece)
            self._hash.update(piece)
            self._take(piece)
            return True
        if len(self._buffer) < 2:
            return False
        self._check()
        self._buffer, self._left = self._buffer[2:], None
        return True

    def _check(self) -> None:
        if self._sign_chunk is None:
            return
        expected = self._sign_chunk(self._previous, self._hash.hexdigest())
        if expected != self._signature:
            raise S3Error("SignatureDoesNotMatch", "the signature of a chunk does not match its data", 403)
        self._previous = expected
