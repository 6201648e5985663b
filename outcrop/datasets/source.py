"""A file in S3 as numbered lines."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from outcrop.errors import Invalid
from outcrop.storage import Objects

S3_URI = re.compile(r"s3://([a-z0-9][-.a-z0-9]{1,61}[a-z0-9])(?:/(.*))?", re.DOTALL)
# A line beyond this is refused unread; the longest row that any base model takes is far shorter.
MOST_LINE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Source:
    """A file of a data set: what the user calls it, and where its bytes lie."""

    uri: str
    path: Path
    size: int


# Ends a document in a file of plain text, on a line by itself.
DOCUMENT_END = b"<|endoftext|>"
PLAIN_TEXT_ENDINGS = (".txt", ".md")


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key. Raises Invalid."""
    match = S3_URI.fullmatch(uri)
    if match is None:
        raise Invalid(f"{uri!r} is not an S3 URI such as s3://bucket/folder/file.jsonl")
    return match.group(1), match.group(2) or ""


def find(objects: Objects, uri: str) -> Source:
    """The file at a URI. Raises Invalid, saying what is there instead."""
    bucket, key = split_uri(uri)
    if objects.bucket(bucket) is None:
        raise Invalid(f"{uri}: there is no bucket {bucket!r}; create it and upload the file")
    stored = objects.get(bucket, key) if key else None
    if stored is None:
        near = [entry.key for _, entry in zip(range(4), objects.keys(bucket, key.rstrip("/")), strict=False)]
        hint = f"; under that prefix there are {', '.join(near)}" if near else ""
        raise Invalid(f"{uri}: there is no such object{hint}")
    return Source(uri, stored.path, stored.size)


def open_file(objects: Objects, name: str) -> Source:
    """A file in S3 or on this machine. Raises Invalid."""
    if name.startswith("s3://"):
        return find(objects, name)
    return local_file(Path(name))


def local_file(path: Path) -> Source:
    """A file on this machine. Raises Invalid."""
    if not path.is_file():
        raise Invalid(f"{path}: there is no such file")
    return Source(str(path), path.absolute(), path.stat().st_size)


def read_lines(source: Source) -> Iterator[tuple[int, bytes]]:
    """Number (from 1) and bytes of every line that is not blank; a line that is too long comes as its first bytes."""
    with source.path.open("rb") as file:
        number = 0
        while line := file.readline(MOST_LINE_BYTES + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            rest = line if len(line) > MOST_LINE_BYTES else b""
            while rest and not rest.endswith(b"\n"):  # the end of an overlong line is read and dropped
                rest = file.readline(1 << 20)
            if line.strip():
                yield number, line


def read_documents(source: Source) -> Iterator[tuple[int, int, bytes]]:
    """First line (from 1), offset and bytes of every document of a plain text, parted by lines that hold DOCUMENT_END alone.

    A document of more than MOST_LINE_BYTES comes as its first bytes. Documents of white space are left out.
    """
    with source.path.open("rb") as file:
        first, begun, number, at, size = 1, 0, 0, 0, 0
        lines: list[bytes] = []
        while line := file.readline(MOST_LINE_BYTES + 1):
            number += 1
            at += len(line)
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
                begun = at - len(line)
            if line.strip() == DOCUMENT_END:
                if any(part.strip() for part in lines):
                    yield first, begun, b"".join(lines)
                first, begun, size, lines = number + 1, at, 0, []
            elif size <= MOST_LINE_BYTES:
                lines.append(line)
                size += len(line)
        if any(part.strip() for part in lines):
            yield first, begun, b"".join(lines)
