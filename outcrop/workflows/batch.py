"""From files of requests in S3 to files of answers."""

import hashlib
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

import msgspec

from outcrop import invocation
from outcrop.clock import now
from outcrop.datasets.source import MOST_LINE_BYTES, Source, read_lines, split_uri
from outcrop.errors import Invalid, NotReady, OutcropError, Throttled
from outcrop.jobs import Job, Tell
from outcrop.jobs.worker import Stopped
from outcrop.registry import Registry
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.workflows.answering import Window, own_engine
from outcrop.workflows.outputs import prefix_of, put

MANIFEST = "manifest.json.out"
TOLD_EVERY_S = 1.0
# What is wrong with a record that does not have the shape of a request.
MISSHAPEN = (KeyError, TypeError, AttributeError, ValueError, IndexError)


@dataclass
class Counts:
    """How far a job is. `total` counts every record of every file."""

    total: int = 0
    success: int = 0
    error: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def manifest(self) -> dict[str, int]:
        """As manifest.json.out has it."""
        return {
            "totalRecordCount": self.total, "processedRecordCount": self.success + self.error,
            "successRecordCount": self.success, "errorRecordCount": self.error, "inputTokenCount": self.input_tokens,
            "outputTokenCount": self.output_tokens,
        }  # fmt: skip


@dataclass
class Batch:
    """The work of a batch inference job. Its engine is a process of its own, so that it does not wait for the server's."""

    storage: Storage
    registry: Registry
    settings: Settings
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, job: Job, tell: Tell) -> None:
        """Answer every record once. When the worker dies, the next one goes on with those that have no answer yet.

        Raises Invalid when there is nothing to answer; Stopped after what there is has been written.
        """
        if job.result.get("is_written"):  # a worker died after it had written everything
            return
        request, run = job.request, self.storage.run_folder(job.id)
        sources = self._sources(request["input_uri"])
        counts = Counts(total=sum(1 for source in sources for _ in read_lines(source)))
        expires = job.created_at + timedelta(hours=request["timeout_h"])
        with own_engine(self.storage, self.registry, self.settings, "batch", request["model"]) as asking:
            for number, source in enumerate(sources):
                self._answer(job, source, run / f"{number}.answers", asking, counts, tell, expires)
                if tell.wants_stop.is_set() or now() > expires:
                    break
        self._write(job, sources, run, counts)
        expired = now() > expires and counts.success + counts.error < counts.total
        tell.result(counts=counts.manifest(), expired=expired, is_written=True)
        shutil.rmtree(run, ignore_errors=True)
        if tell.wants_stop.is_set():
            raise Stopped

    def _sources(self, uri: str) -> list[Source]:
        """The file at a URI, or all files of JSONL under it. Raises Invalid."""
        bucket, key = split_uri(uri)
        if self.storage.objects.bucket(bucket) is None:
            raise Invalid(f"{uri}: there is no bucket {bucket!r}")
        whole = self.storage.objects.get(bucket, key) if key and not key.endswith("/") else None
        prefix = f"{key.rstrip('/')}/" if key else ""
        found = [whole] if whole is not None else list(self.storage.objects.keys(bucket, prefix))
        files = [stored for stored in found if stored.key.endswith(".jsonl") and stored.size]
        if not files:
            raise Invalid(f"{uri}: there is no file that ends in .jsonl and holds something")
        return [Source(f"s3://{bucket}/{stored.key}", stored.path, stored.size) for stored in files]

    def _answer(
        self, job: Job, source: Source, file: Path, asking: invocation.Invocation, counts: Counts, tell: Tell,
        expires: datetime,
    ) -> None:  # fmt: skip
        """Answer the records of a file that have none yet, as many at once as the engine takes."""
        done = self._take_up(file, counts)
        told = time.monotonic()
        with file.open("ab") as answers, ThreadPoolExecutor(self.settings.engine_slots) as pool:
            waiting = Window(pool, 2 * self.settings.engine_slots)
            for number, line in read_lines(source):
                if number in done:
                    continue
                if tell.wants_stop.is_set() or tell.is_lost.is_set() or now() > expires:
                    break
                waiting.submit(self._one, job, number, line, asking, answers, counts)
                if time.monotonic() - told > TOLD_EVERY_S:
                    tell.result(counts=counts.manifest())
                    told = time.monotonic()
            waiting.finish()
        tell.check() if tell.is_lost.is_set() else tell.result(counts=counts.manifest())

    def _take_up(self, file: Path, counts: Counts) -> set[int]:
        """Lines that an earlier try answered; an answer that was cut off is forgotten."""
        if not file.is_file():
            return set()
        data = file.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            file.write_bytes(whole)
        done = set()
        for line in whole.splitlines():
            kept = msgspec.json.decode(line, type=_Kept)
            done.add(kept.line)
            _count(counts, kept)
        return done

    def _one(
        self, job: Job, number: int, line: bytes, asking: invocation.Invocation, answers: IO[bytes], counts: Counts
    ) -> None:
        kept = _Kept(number, *_reply(job, number, line, asking))
        with self._lock:
            answers.write(msgspec.json.encode(kept) + b"\n")
            answers.flush()
            _count(counts, kept)

    def _write(self, job: Job, sources: list[Source], run: Path, counts: Counts) -> None:
        """`{output}/{job id}/{file}.out` for every file, and the manifest."""
        bucket, prefix = prefix_of(job.request["output_uri"], job.id)
        for number, source in enumerate(sources):
            file = run / f"{number}.answers"
            if not file.is_file():
                continue
            given = job.request["input_uri"]
            name = source.uri.removeprefix(f"{given.rstrip('/')}/") if source.uri != given else given.rpartition("/")[2]
            put(self.storage.objects, bucket, f"{prefix}{name}.out", _records(file), "application/x-ndjson")
        manifest = msgspec.json.encode(counts.manifest())
        self.storage.objects.put_bytes(bucket, prefix + MANIFEST, manifest, "application/json")


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """A record's answer, by its line in the input."""

    line: int
    record: dict[str, Any]
    input_tokens: int
    output_tokens: int


def _reply(job: Job, number: int, line: bytes, asking: invocation.Invocation) -> tuple[dict[str, Any], int, int]:
    """The record of the output, and the tokens that it took."""
    record: dict[str, Any] = {}
    try:
        if len(line) > MOST_LINE_BYTES:
            raise Invalid(f"line {number} has more than {MOST_LINE_BYTES:,} bytes")
        try:
            given = msgspec.json.decode(line, type=dict[str, Any])
            record = {
                "modelInput": given.get("modelInput"),
                "recordId": given.get("recordId") or _record_id(job, number),
            }
            if not isinstance(given.get("modelInput"), dict):
                raise Invalid(f"line {number}: modelInput must be an object")
            output, input_tokens, output_tokens = _output(job, given["modelInput"], asking)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Invalid(f"line {number} is not a JSON object: {error}") from None
        except MISSHAPEN as error:
            raise Invalid(f"modelInput does not have the shape of a request: {type(error).__name__}: {error}") from None
    except OutcropError as error:
        record = record or {"modelInput": None, "recordId": _record_id(job, number)}
        code = 400 if error.code in ("ValidationException", "ResourceNotFoundException") else 500
        return {**record, "error": {"errorCode": code, "errorMessage": error.message}}, 0, 0
    return (
        {"modelInput": record["modelInput"], "modelOutput": output, "recordId": record["recordId"]},
        input_tokens,
        output_tokens,
    )


def _output(job: Job, model_input: dict[str, Any], asking: invocation.Invocation) -> tuple[Any, int, int]:
    """The model's answer in the form of the request, and its tokens in and out. Waits while the engine is full."""
    model = job.request["model"]
    while True:
        try:
            if job.request["type"] == "Converse":
                answer = invocation.converse(asking, {**model_input, "modelId": model})
                usage = answer["usage"]
                return answer, usage["inputTokens"], usage["outputTokens"]
            body, result = invocation.invoke(asking, model, msgspec.json.encode(model_input))
            return msgspec.Raw(body), result.input_tokens, result.output_tokens
        except (Throttled, NotReady):
            time.sleep(0.2)


def _record_id(job: Job, number: int) -> str:
    """For a record that has none: 11 characters, the same at every try."""
    return hashlib.sha256(f"{job.id} {number}".encode()).hexdigest()[:11].upper()


def _count(counts: Counts, kept: _Kept) -> None:
    failed = "error" in kept.record
    counts.success, counts.error = counts.success + (not failed), counts.error + failed
    counts.input_tokens += kept.input_tokens
    counts.output_tokens += kept.output_tokens


def _records(file: Path) -> Iterator[bytes]:
    with file.open("rb") as lines:
        for line in lines:
            yield msgspec.json.encode(msgspec.json.decode(line, type=_Kept).record) + b"\n"
