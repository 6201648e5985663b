"""Entries on the disk before they are acknowledged, in files that are later delivered.

A line is handed to the operating system with one write(2) before the caller goes on. So what was acknowledged survives the
end of this process, however sudden; a power cut may take what the system had not yet written out (seconds).
"""

import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

OPEN, CLOSED = ".open", ".closed"
# A file is delivered when it has this size, whatever its age.
MOST_BYTES = 8 << 20


class Head(msgspec.Struct, frozen=True):
    """A journal file's first line: where its entries go."""

    bucket: str
    prefix: str


@dataclass
class _Segment:
    path: Path
    file: int
    head: Head
    begun: float
    size: int


class Journal:
    """A folder of journal files. Lines are `region TAB hour TAB JSON`; JSON written in one line has no tab in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._segment: _Segment | None = None

    def take_up(self) -> None:
        """Close what a process that is no more left open. Only for the one process that writes."""
        for path in self._folder.glob(f"*{OPEN}"):
            path.rename(path.with_suffix(CLOSED))

    def append(self, head: Head, region: str, hour: str, line: bytes) -> None:
        """Keep a line. Raises OSError when the disk does not take it."""
        record = b"\t".join((region.encode(), hour.encode(), line)) + b"\n"
        with self._lock:
            segment = self._segment
            if segment is None or segment.head != head or segment.size > MOST_BYTES:
                segment = self._begin(head)
            left = memoryview(record)
            try:
                while left:
                    left = left[os.write(segment.file, left) :]
            except OSError:
                os.ftruncate(segment.file, segment.size)  # else the next record would be glued to half of this one
                raise
            segment.size += len(record)

    def close(self, older_than_s: float = 0.0) -> None:
        """Let the open file be delivered, if it is old enough."""
        with self._lock:
            if self._segment is not None and time.monotonic() - self._segment.begun >= older_than_s:
                self._end()

    def closed(self) -> list[Path]:
        """Files that wait to be delivered, oldest first."""
        return sorted(self._folder.glob(f"*{CLOSED}"))

    def _begin(self, head: Head) -> _Segment:
        self._end()
        path = self._folder / f"{time.time_ns()}-{uuid.uuid4().hex[:12]}{OPEN}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        first = msgspec.json.encode(head) + b"\n"
        try:
            os.write(file, first)
        except OSError:
            os.close(file)
            path.unlink()
            raise
        self._segment = _Segment(path, file, head, time.monotonic(), len(first))
        return self._segment

    def _end(self) -> None:
        if self._segment is not None:
            os.close(self._segment.file)
            self._segment.path.rename(self._segment.path.with_suffix(CLOSED))
            self._segment = None


def head_of(path: Path) -> Head | None:
    """A closed file's head; None when not even that was written."""
    with path.open("rb") as file:
        first = file.readline()
    return msgspec.json.decode(first, type=Head) if first.endswith(b"\n") else None


def lines_of(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """(region, hour, line) one by one. A line that was cut off was never acknowledged."""
    with path.open("rb") as file:
        file.readline()
        for record in file:
            parts = record[:-1].split(b"\t", 2)
            if record.endswith(b"\n") and len(parts) == 3:
                yield parts[0].decode(), parts[1].decode(), parts[2]
