"""The second door's operations: OpenAI's shapes over the same models and jobs.

Files lie in a bucket of their own, so that boto3 sees them too. A job that either door began is listed by both. What
OpenAI offers and Outcrop does not is refused in words.
"""

import hashlib
from array import array
from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from outcrop import hyperparameters, invocation
from outcrop.api import custom_models, customization, jobs
from outcrop.api.call import Call
from outcrop.clock import now
from outcrop.errors import Invalid, NotFound, Unsupported
from outcrop.jobs import Job
from outcrop.jobs.job import ENDED, FAILED
from outcrop.names import short_id

Request = dict[str, Any]

BUCKET = "outcrop-openai"
PURPOSES = ("fine-tune", "batch", "assistants", "user_data", "vision", "evals")
HYPERPARAMETERS = {
    "n_epochs": "epochCount",
    "batch_size": "batchSize",
    "learning_rate_multiplier": "learningRateMultiplier",
}
JOB = "ftjob-"
STATUSES = {"Completed": "succeeded", "Failed": "failed", "Stopped": "cancelled", "Stopping": "running"}


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


# --- models and answers -------------------------------------------------------------------------------------------------


def list_models(request: Request, call: Call) -> Request:
    """Base, imported and custom models that can be asked."""
    registry = call.service.registry
    shown = [_model(model.id, model.provider, None) for model in registry.base_models()]
    shown += [_model(model.name, "outcrop", model.created_at) for model in registry.imported.all()]
    shown += [_model(model.name, "outcrop", model.created_at) for model in registry.custom.all()]
    return {"object": "list", "data": shown}


def retrieve_model(request: Request, call: Call) -> Request:
    """One of them. Raises NotFound."""
    found = next((one for one in list_models({}, call)["data"] if one["id"] == request["model"]), None)
    if found is None:
        call.service.serving.target(request["model"])  # an ARN, a deployment or an alias
        found = _model(request["model"], "outcrop", None)
    return found


def delete_model(request: Request, call: Call) -> Request:
    """Delete a custom model. Raises NotFound, Conflict."""
    custom_models.delete_custom_model({"modelIdentifier": request["model"]}, call)
    return {"id": request["model"], "object": "model", "deleted": True}


def _model(name: str, owner: str, created_at: datetime | None) -> Request:
    return {"id": name, "object": "model", "created": _seconds(created_at) or 0, "owned_by": owner}


def create_chat_completion(request: Request, call: Call) -> Request | Iterator[Request]:
    """An answer to messages, whole or as chunks."""
    if "messages" not in request:
        raise Invalid("messages is missing")
    return _completed(request, call)


def create_completion(request: Request, call: Call) -> Request | Iterator[Request]:
    """An answer to a text, whole or as chunks."""
    prompt = request.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        request = {**request, "prompt": prompt[0]}
    elif not isinstance(prompt, str):
        raise Invalid("prompt must be a string, or a list of one; ask once for each")
    return _completed(request, call)


def _completed(request: Request, call: Call) -> Request | Iterator[Request]:
    model = request.get("model")
    if not isinstance(model, str):
        raise Invalid(f"model is {model!r}; it must be the name of a model")
    asking = invocation.Invocation(call.service.serving, call.service.registry, call.context.gone)
    body = invocation.read_body(msgspec.json.encode({"temperature": 1, "max_tokens": None, **request}))
    if not request.get("stream"):
        return body.whole(model, invocation.answer(asking, model, body.ask))
    return _chunks(body, model, invocation.stream(asking, model, body.ask))


def _chunks(body: invocation.Body, model: str, pieces: Iterator[Any]) -> Iterator[Request]:
    try:
        for chunk in body.events(model, pieces):
            chunk.pop("amazon-bedrock-invocationMetrics", None)
            yield chunk
    finally:
        pieces.close()  # type: ignore[attr-defined]


def create_embeddings(request: Request, call: Call) -> Request:
    """The vectors of one text or several, as numbers or in base64."""
    left = dict(request)
    model, given = left.pop("model", None), left.pop("input", None)
    texts = [given] if isinstance(given, str) else given
    if not isinstance(model, str) or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Invalid("model must be a string, and input a string or a list of strings")
    form = left.pop("encoding_format", "float")
    if form not in ("float", "base64"):
        raise Invalid(f"encoding_format is {form!r}; it must be float or base64")
    left.pop("user", None)
    wanted = left.pop("dimensions", None)
    if left:
        raise Invalid(f"{next(iter(left))} is not known here")
    asking = invocation.Invocation(call.service.serving, call.service.registry, call.context.gone)
    made = invocation.embed(asking, model, texts)
    if wanted not in (None, len(made.vectors[0])):
        raise Invalid(f"dimensions is {wanted}; {model} makes {len(made.vectors[0])}")
    shown: list[Any] = made.vectors
    if form == "base64":
        shown = [b64encode(array("f", vector).tobytes()).decode() for vector in made.vectors]
    return {
        "object": "list", "model": model, "usage": {"prompt_tokens": made.tokens, "total_tokens": made.tokens},
        "data": [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(shown)],
    }  # fmt: skip


# --- files --------------------------------------------------------------------------------------------------------------


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
    return _page([_file(one) for one in _files(call).all() if purpose in (None, one.purpose)], request, "id")


def retrieve_file(request: Request, call: Call) -> Request:
    """One file's entry. Raises NotFound."""
    return _file(_find_file(request["file_id"], call))


def retrieve_file_content(request: Request, call: Call) -> bytes:
    """A file's bytes. Raises NotFound."""
    identifier: str = request["file_id"]
    if identifier.startswith("file-metrics-"):
        job = _find_job(identifier.removeprefix("file-metrics-"), call)
        bucket, _, prefix = job.request["output_uri"].removeprefix("s3://").partition("/")
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        key = f"{folder}model-customization-job-{job.id}/training_artifacts/step_wise_training_metrics.csv"
    else:
        bucket, key = BUCKET, _find_file(identifier, call).key
    opened = call.storage.objects.open(bucket, key)
    if opened is None:
        raise NotFound(f"There are no bytes of the file {identifier!r}")
    with opened[1] as file:
        data: bytes = file.read()
    return data


def delete_file(request: Request, call: Call) -> Request:
    """Remove a file. Raises NotFound."""
    found = _find_file(request["file_id"], call)
    _files(call).remove(found.id)
    call.storage.objects.remove(BUCKET, [found.key])
    return {"id": found.id, "object": "file", "deleted": True}


def _files(call: Call) -> Any:
    return call.storage.records.collection("openai-file", StoredFile, lambda one: one.id)


def _find_file(identifier: str, call: Call) -> StoredFile:
    found: StoredFile | None = _files(call).get(identifier)
    if found is None:
        raise NotFound(f"There is no file {identifier!r}")
    return found


def _file(one: StoredFile) -> Request:
    return {
        "id": one.id, "object": "file", "bytes": one.bytes, "created_at": _seconds(one.created_at), "filename": one.name,
        "purpose": one.purpose, "status": "processed",
    }  # fmt: skip


# --- fine-tuning --------------------------------------------------------------------------------------------------------


def create_fine_tuning_job(request: Request, call: Call) -> Request:
    """Queue a customization job. Raises Invalid, NotFound."""
    left = dict(request)
    model, training = left.pop("model", None), left.pop("training_file", None)
    for name, value in (("model", model), ("training_file", training)):
        if not isinstance(value, str):
            raise Invalid(f"{name} is {value!r}; it must be a string")
    method = left.pop("method", None) or {"type": "supervised"}
    if method.get("type") != "supervised":
        raise Unsupported(f"method.type {method.get('type')} is not implemented by Outcrop; supervised is")
    given = (method.get("supervised") or {}).get("hyperparameters") or left.pop("hyperparameters", None) or {}
    left.pop("hyperparameters", None)
    suffix = left.pop("suffix", None) or "model"
    seed, validation, metadata = left.pop("seed", None), left.pop("validation_file", None), left.pop("metadata", None)
    if left.pop("integrations", None):
        raise Unsupported("integrations are not implemented by Outcrop; leave them out")
    if left:
        raise Invalid(f"{next(iter(left))} is not known here")
    unknown = sorted(set(given) - set(HYPERPARAMETERS))
    if unknown:
        raise Invalid(f"hyperparameters.{unknown[0]} is not known; known are {', '.join(HYPERPARAMETERS)}")
    asked = {HYPERPARAMETERS[name]: f"{value:g}" for name, value in given.items() if value != "auto"}
    if seed is not None:
        asked["seed"] = str(seed)
    call.storage.objects.make_bucket(BUCKET, {})
    identifier = short_id()
    arn = customization.create_model_customization_job(
        {
            "jobName": f"{JOB}{identifier}",
            "customModelName": f"ft-{''.join(letter for letter in suffix if letter.isalnum())[:18] or 'model'}-{identifier}",
            "roleArn": f"arn:aws:iam::{call.service.settings.account}:role/openai-door",
            "baseModelIdentifier": model,
            "trainingDataConfig": {"s3Uri": _uri(training, call)},
            "validationDataConfig": {"validators": [{"s3Uri": _uri(validation, call)}] if validation else []},
            "outputDataConfig": {"s3Uri": f"s3://{BUCKET}/jobs/"},
            "hyperParameters": asked,
            "jobTags": [{"key": key, "value": str(value)} for key, value in (metadata or {}).items()],
        },
        call,
    )["jobArn"]
    return _job(jobs.find(customization.KIND, arn, call, "fine-tuning job"), call)


def list_fine_tuning_jobs(request: Request, call: Call) -> Request:
    """Customization jobs of both doors, newest first."""
    return _page([_job(job, call) for job in call.service.jobs.all(customization.KIND)], request, "id")


def retrieve_fine_tuning_job(request: Request, call: Call) -> Request:
    """One job. Raises NotFound."""
    return _job(_find_job(request["fine_tuning_job_id"], call), call)


def cancel_fine_tuning_job(request: Request, call: Call) -> Request:
    """Ask a job to stop. Raises Conflict when it is over."""
    jobs.stop(_find_job(request["fine_tuning_job_id"], call), call)
    return retrieve_fine_tuning_job(request, call)


def list_fine_tuning_events(request: Request, call: Call) -> Request:
    """What a job has told, newest first."""
    job = _find_job(request["fine_tuning_job_id"], call)
    told = [_event(job, event) for event in reversed(call.service.jobs.all_events(job.id))]
    return _page(told, request, "id")


def list_fine_tuning_checkpoints(request: Request, call: Call) -> Request:
    """The checkpoints that a job has written, newest first: folders in S3 which CreateCustomModel takes."""
    job = _find_job(request["fine_tuning_job_id"], call)
    bucket, _, prefix = job.request["output_uri"].removeprefix("s3://").partition("/")
    folder = f"{prefix.rstrip('/')}/" if prefix else ""
    begin = f"{folder}model-customization-job-{job.id}/checkpoints/"
    objects = call.storage.objects
    names = sorted({one.key[len(begin) :].partition("/")[0] for one in objects.keys(bucket, begin)}, reverse=True)
    metrics: dict[int, Request] = {}
    for event in call.service.jobs.all_events(job.id):
        if event["kind"] == "step":
            metrics.setdefault(event["step"], {})["train_loss"] = event["loss"]
        elif event["kind"] == "evaluation" and event["losses"]:
            metrics.setdefault(event["step"], {})["valid_loss"] = event["losses"][0]
    steps = {name: int(name.rpartition("-")[2]) for name in names}
    shown = [
        {
            "id": f"ftckpt-{job.id}-{steps[name]}", "object": "fine_tuning.job.checkpoint", "created_at": _seconds(job.ended_at),
            "fine_tuned_model_checkpoint": f"s3://{bucket}/{begin}{name}/", "fine_tuning_job_id": _id(job),
            "step_number": steps[name], "metrics": {"step": steps[name], **metrics.get(steps[name], {})},
        }
        for name in names
    ]  # fmt: skip
    return _page(shown, request, "id")


def _find_job(identifier: str, call: Call) -> Job:
    """By OpenAI's id, or as the first door names it."""
    found = call.service.jobs.find(customization.KIND, identifier)
    return found or jobs.find(customization.KIND, identifier.removeprefix(JOB), call, "fine-tuning job")


def _id(job: Job) -> str:
    """OpenAI's id: the name of a job that this door began, which Bedrock's operations take, too."""
    return job.name if job.name.startswith(JOB) else f"{JOB}{job.id}"


def _uri(file: str, call: Call) -> str:
    """Where a file's bytes lie; an S3 URI is one already."""
    return file if file.startswith("s3://") else f"s3://{BUCKET}/{_find_file(file, call).key}"


def _file_of(uri: str) -> str:
    """The file that a URI of the door's bucket stands for; any other URI by itself."""
    begin = f"s3://{BUCKET}/files/"
    return uri.removeprefix(begin).partition("/")[0] if uri.startswith(begin) else uri


def _job(job: Job, call: Call) -> Request:
    asked, result = job.request, job.result
    effective = result.get("hyperParameters") or hyperparameters.as_text(
        hyperparameters.read(asked["hyperParameters"], asked["num_parameters"], asked["customization"])
    )
    shown = {
        name: float(effective[ours]) if ours in effective and name == "learning_rate_multiplier" else
        int(effective[ours]) if ours in effective else "auto"
        for name, ours in HYPERPARAMETERS.items()
    }  # fmt: skip
    if "learningRateMultiplier" in asked["hyperParameters"]:
        shown["learning_rate_multiplier"] = float(asked["hyperParameters"]["learningRateMultiplier"])
    is_checking = job.phases.get("training") is not None and job.phases["training"].status == "NotStarted"
    status = STATUSES.get(job.status) or ("validating_files" if is_checking else "running")
    failure = {"code": "job_failed", "message": job.failure, "param": None} if job.status == FAILED else None
    is_trained = "model_arn" in result
    return {
        "id": _id(job), "object": "fine_tuning.job", "created_at": _seconds(job.created_at),
        "finished_at": _seconds(job.ended_at), "model": asked["base_model"],
        "fine_tuned_model": asked["model_name"] if is_trained else None, "status": status, "error": failure,
        "training_file": _file_of(asked["training_uri"]),
        "validation_file": next((_file_of(uri) for uri in asked["validation_uris"]), None),
        "result_files": [f"file-metrics-{job.id}"] if is_trained else [], "trained_tokens": None,
        "hyperparameters": shown, "method": {"type": "supervised", "supervised": {"hyperparameters": shown}},
        "seed": int(effective.get("seed", 0)), "organization_id": "outcrop", "integrations": [], "metadata": job.tags,
        "estimated_finish": None if job.status in ENDED else _estimate(job, call), "user_provided_suffix": None,
    }  # fmt: skip


def _estimate(job: Job, call: Call) -> int | None:
    """When the training will be over, by its last step."""
    steps = [event for event in call.service.jobs.all_events(job.id) if event["kind"] == "step"]
    if not steps:
        return None
    return int(datetime.fromisoformat(steps[-1]["at"]).timestamp() + steps[-1]["seconds_left"])


def _event(job: Job, event: Request) -> Request:
    kind = event["kind"]
    data = {name: value for name, value in event.items() if name not in ("number", "at", "kind")}
    if kind == "step":
        message = f"Step {event['step']}/{event['steps']}: training loss={event['loss']:.4f}"
    elif kind == "evaluation" and event["losses"]:
        message = f"Step {event['step']}: validation loss={event['losses'][0]:.4f}"
    else:
        message = (
            f"{kind}: {', '.join(f'{name} {value}' for name, value in data.items() if value not in (None, '', []))}"
        )
    return {
        "id": f"ftevent-{job.id}-{event['number']}", "object": "fine_tuning.job.event",
        "created_at": int(datetime.fromisoformat(event["at"]).timestamp()), "level": "info", "message": message,
        "type": "metrics" if kind in ("step", "evaluation") else "message", "data": data,
    }  # fmt: skip


# --- lists --------------------------------------------------------------------------------------------------------------


def _page(entries: list[Request], request: Request, key: str) -> Request:
    """A page of a list, from the entry after `after`. Raises Invalid."""
    limit = str(request.get("limit", 20))
    if not (limit.isascii() and limit.isdigit()) or not 0 < int(limit) <= 10_000:
        raise Invalid(f"limit is {limit!r}; it must be a number from 1 to 10000")
    after, begin = request.get("after"), 0
    if after:
        begin = next((place + 1 for place, one in enumerate(entries) if one[key] == after), len(entries))
    chosen = entries[begin : begin + int(limit)]
    ends = {"first_id": chosen[0][key] if chosen else None, "last_id": chosen[-1][key] if chosen else None}
    return {"object": "list", "data": chosen, "has_more": begin + len(chosen) < len(entries), **ends}


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())
