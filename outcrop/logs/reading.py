"""Entries back from S3: ours, and those that Bedrock itself has written."""

import gzip
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import msgspec

from outcrop.errors import Invalid
from outcrop.storage import Objects

ENDINGS = (".gz", ".jsonl", ".json")


class Logged(msgspec.Struct, frozen=True):
    """A logged call; `place` is its object and line. Bodies are None where they were not delivered."""

    place: str
    request_id: str
    operation: str
    model: str
    metadata: dict[str, str]
    timestamp: str = ""
    input_body: Any = None
    output_body: Any = None
    error: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def at(self) -> datetime | None:
        """When it was, in UTC where the record names no zone; None for what is no time."""
        try:
            at = datetime.fromisoformat(self.timestamp)
        except ValueError:
            return None
        return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


class _Side(msgspec.Struct):
    inputBodyJson: Any = None
    outputBodyJson: Any = None
    inputBodyS3Path: str | None = None
    outputBodyS3Path: str | None = None
    inputTokenCount: int | None = None
    outputTokenCount: int | None = None


class _Record(msgspec.Struct):
    requestId: str
    modelId: str
    schemaType: str = ""
    operation: str = ""
    timestamp: str = ""
    input: _Side = msgspec.field(default_factory=_Side)
    output: _Side | None = None
    requestMetadata: dict[str, str] | None = None
    errorCode: str = ""


def read_logs(objects: Objects, bucket: str, prefix: str) -> Iterator[Logged | str]:
    """Every logged call under a prefix, in the order of the keys; for a line that is none, what is wrong with it.

    Raises Invalid when there is no bucket, or no file that could hold logs.
    """
    if objects.bucket(bucket) is None:
        raise Invalid(f"s3://{bucket}/{prefix}: there is no bucket {bucket!r}")
    found = False
    for stored in objects.keys(bucket, prefix):
        if not stored.key.endswith(ENDINGS) or PurePosixPath(stored.key).parent.name == "data":
            continue
        found = True
        place = f"s3://{bucket}/{stored.key}"
        try:
            with gzip.open(stored.path) if stored.key.endswith(".gz") else stored.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield _logged(objects, f"{place}:{number}", line)
        except (OSError, EOFError, zlib.error) as error:
            yield f"{place}: cannot be read: {error}"
    if not found:
        raise Invalid(f"s3://{bucket}/{prefix}: there are no logs (*.gz, *.jsonl, *.json) under this prefix")


def _logged(objects: Objects, place: str, line: bytes) -> Logged | str:
    try:
        record = msgspec.json.decode(line, type=_Record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"{place}: is not a record of an invocation log: {error}"
    output = record.output or _Side()
    try:
        return Logged(
            place, record.requestId, record.operation, record.modelId, record.requestMetadata or {}, record.timestamp,
            _body(objects, record.input.inputBodyJson, record.input.inputBodyS3Path),
            _body(objects, output.outputBodyJson, output.outputBodyS3Path), record.errorCode,
            record.input.inputTokenCount, output.outputTokenCount,
        )  # fmt: skip
    except (OSError, EOFError, zlib.error, msgspec.DecodeError) as error:
        return f"{place}: its body cannot be read: {error}"


def _body(objects: Objects, body: Any, path: str | None) -> Any:
    if path is None or body is not None:
        return body
    bucket, _, key = path.removeprefix("s3://").partition("/")
    stored = objects.get(bucket, key)
    if stored is None:
        raise OSError(f"{path} is not there")
    data = stored.path.read_bytes()
    return msgspec.json.decode(gzip.decompress(data) if key.endswith(".gz") else data)
