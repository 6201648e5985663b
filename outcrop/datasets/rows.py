"""Tokenized rows in a file: what datasets leaves and training reads."""

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from outcrop.rendering import Rendered

HASHED_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Targets:
    """What is to be learned at each answer token of some rows, in their order, in the place of the token itself.

    tokens   int32 [A, K]    tokens
    weights  float32 [A, K]  how much of each; a place's add up to 1
    """

    tokens: np.ndarray
    weights: np.ndarray

    def write(self, path: Path) -> None:
        """Lay them down, whole or not at all."""
        unfinished = path.with_name(path.name + ".unfinished")
        with unfinished.open("wb") as file:
            file.write(json.dumps({"places": len(self.tokens), "kept": self.tokens.shape[1]}).encode() + b"\n")
            for part, kind in ((self.tokens, "<i4"), (self.weights, "<f4")):
                file.write(np.ascontiguousarray(part).astype(kind, copy=False).data)
        unfinished.rename(path)

    @classmethod
    def read(cls, path: Path) -> "Targets":
        """From a file; the arrays are mapped, not loaded."""
        with path.open("rb") as file:
            sizes = json.loads(file.readline())
            offset = file.tell()
        shape = (sizes["places"], sizes["kept"])
        raw = np.memmap(path, mode="r", offset=offset)
        size = 4 * shape[0] * shape[1]
        return cls(raw[:size].view("<i4").reshape(shape), raw[size : 2 * size].view("<f4").reshape(shape))


@dataclass(frozen=True)
class Rows:
    """Rows laid end to end.

    tokens     int32 [T]    token ids
    is_answer  bool  [T]    what is learned
    starts     int64 [N+1]  where each row begins; the last entry is T

    With `targets` these are learned instead of the answer tokens.
    """

    tokens: np.ndarray
    is_answer: np.ndarray
    starts: np.ndarray
    targets: Targets | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    def length(self, row: int) -> int:
        """Tokens in a row."""
        return int(self.starts[row + 1] - self.starts[row])

    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(np.diff(self.starts).max())

    def row(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """A row's tokens and mask."""
        span = slice(self.starts[row], self.starts[row + 1])
        return self.tokens[span], self.is_answer[span]

    @cached_property
    def answer_starts(self) -> np.ndarray:
        """int64 [N+1]: how many answer tokens come before each row."""
        counts = np.add.reduceat(self.is_answer.astype(np.int64), self.starts[:-1])
        return np.concatenate([[0], np.cumsum(counts)])

    def release(self) -> None:
        """Give back the memory of the pages that were read, if the rows are a mapped file; they are read again when needed."""
        part: object = self.tokens
        while isinstance(part, np.ndarray):
            mapped = getattr(part, "_mmap", None)
            if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)
                return
            part = part.base

    def digest(self) -> bytes:
        """SHA-256 of all that is in the rows."""
        digest = hashlib.sha256()
        for part in (self.starts, self.tokens, self.is_answer):
            for begin in range(0, len(part), HASHED_AT_ONCE):
                digest.update(part[begin : begin + HASHED_AT_ONCE].data)
                self.release()
        return digest.digest()

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self.row(index) for index in range(len(self)))

    @classmethod
    def of(cls, rendered: Iterable[Rendered]) -> "Rows":
        """Rows from what the renderer made, taken up one by one: 5 bytes a token and no more."""
        tokens, masks = bytearray(), bytearray()
        starts = [0]
        for row in rendered:
            tokens += np.asarray(row.tokens, dtype=np.int32).tobytes()
            masks += np.asarray(row.is_answer, dtype=bool).tobytes()
            starts.append(starts[-1] + len(row.tokens))
        return cls(np.frombuffer(tokens, np.int32), np.frombuffer(masks, bool), np.asarray(starts, dtype=np.int64))

    def write(self, path: Path) -> None:
        """Lay the rows down: one line of JSON with the two lengths, then the three arrays as they are."""
        with path.open("wb") as file:
            file.write(json.dumps({"rows": len(self), "tokens": len(self.tokens)}).encode() + b"\n")
            for part, kind in ((self.starts, "<i8"), (self.tokens, "<i4"), (self.is_answer, "u1")):
                file.write(np.ascontiguousarray(part).astype(kind, copy=False).data)

    @classmethod
    def read(cls, path: Path) -> "Rows":
        """Rows from a file; the arrays are mapped, not loaded."""
        with path.open("rb") as file:
            sizes = json.loads(file.readline())
            offset = file.tell()
        num_rows, num_tokens = sizes["rows"], sizes["tokens"]
        raw = np.memmap(path, mode="r", offset=offset)
        starts, rest = raw[: 8 * (num_rows + 1)], raw[8 * (num_rows + 1) :]
        return cls(
            rest[: 4 * num_tokens].view("<i4"), rest[4 * num_tokens : 5 * num_tokens].view(bool), starts.view("<i8")
        )
