"""Files that were sent; their bytes lie in a bucket of their own."""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from outcrop.api import customization, jobs
from outcrop.api.call import Call
from outcrop.api.openai.lists import page, seconds
from outcrop.clock import now
from outcrop.errors import Invalid, NotFound
from outcrop.jobs import Job
from outcrop.names import short_id

Request = dict[str, Any]

BUCKET = "outcrop-openai"
PURPOSES = ("fine-tune", "batch", "assistants", "user_data", "vision", "evals")


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was sent; its bytes are the object `key` of the door's bucket."""

    id: str
    name: str
    purpose: str
    bytes: int
    created_at: datetime

    @property
    def key(self) -> str:
        """Where its bytes lie."""
        return f"files/{self.id}/{self.name}"


def create_file(request: Request, call: Call) -> Request:
    """Keep a file that came in a form."""
    if "file" not in request:
        raise Invalid("the form has no field `file` with a file in it")
    purpose = request.get("purpose", "")
    if purpose not in PURPOSES:
        raise Invalid(f"purpose is {purpose!r}; it must be one of {', '.join(PURPOSES)}")
    name, path = request["file"]
    made = StoredFile(
        id=f"file-{short_id()}",
        name=Path(name).name or "file",
        purpose=purpose,
        bytes=path.stat().st_size,
        created_at=now(),
    )
    objects = call.storage.objects
    objects.make_bucket(BUCKET, {})
    with path.open("rb") as file:
        etag = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    objects.put(BUCKET, made.key, path, etag, {"ContentType": "application/octet-stream"})
    _files(call).add(made)
    return _file(made)


def list_files(request: Request, call: Call) -> Request:
    """Files, newest first."""
    purpose = request.get("purpose")
    return page([_file(one) for one in _files(call).all() if purpose in (None, one.purpose)], request, "id")


def retrieve_file(request: Request, call: Call) -> Request:
    """One file's entry. Raises NotFound."""
    return _file(find_file(request["file_id"], call))


def retrieve_file_content(request: Request, call: Call) -> bytes:
    """A file's bytes. Raises NotFound."""
    identifier: str = request["file_id"]
    if identifier.startswith("file-metrics-"):
        job = jobs.find(customization.KIND, identifier.removeprefix("file-metrics-"), call, "fine-tuning job")
        bucket, folder = outputs_of(job)
        key = f"{folder}training_artifacts/step_wise_training_metrics.csv"
    else:
        bucket, key = BUCKET, find_file(identifier, call).key
    opened = call.storage.objects.open(bucket, key)
    if opened is None:
        raise NotFound(f"There are no bytes of the file {identifier!r}")
    with opened[1] as file:
        data: bytes = file.read()
    return data


def delete_file(request: Request, call: Call) -> Request:
    """Remove a file. Raises NotFound."""
    found = find_file(request["file_id"], call)
    _files(call).remove(found.id)
    call.storage.objects.remove(BUCKET, [found.key])
    return {"id": found.id, "object": "file", "deleted": True}


def outputs_of(job: Job) -> tuple[str, str]:
    """Bucket and prefix under which a job wrote."""
    bucket, _, prefix = job.request["output_uri"].removeprefix("s3://").partition("/")
    folder = f"{prefix.rstrip('/')}/" if prefix else ""
    return bucket, f"{folder}model-customization-job-{job.id}/"


def _files(call: Call) -> Any:
    return call.storage.records.collection("openai-file", StoredFile, lambda one: one.id)


def find_file(identifier: str, call: Call) -> StoredFile:
    """A file by its id. Raises NotFound."""
    found: StoredFile | None = _files(call).get(identifier)
    if found is None:
        raise NotFound(f"There is no file {identifier!r}")
    return found


def _file(one: StoredFile) -> Request:
    return {
        "id": one.id, "object": "file", "bytes": one.bytes, "created_at": seconds(one.created_at), "filename": one.name,
        "purpose": one.purpose, "status": "processed",
    }  # fmt: skip
