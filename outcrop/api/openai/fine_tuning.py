"""Fine-tuning jobs: customization jobs in OpenAI's shape, whichever door began them."""

from datetime import datetime
from typing import Any

from outcrop import hyperparameters
from outcrop.api import customization, jobs
from outcrop.api.call import Call
from outcrop.api.openai.files import BUCKET, find_file, outputs_of
from outcrop.api.openai.lists import page, seconds
from outcrop.errors import Invalid, Unsupported
from outcrop.jobs import Job
from outcrop.jobs.job import ENDED, FAILED
from outcrop.names import short_id

Request = dict[str, Any]

HYPERPARAMETERS = {
    "n_epochs": "epochCount",
    "batch_size": "batchSize",
    "learning_rate_multiplier": "learningRateMultiplier",
}
JOB = "ftjob-"
STATUSES = {"Completed": "succeeded", "Failed": "failed", "Stopped": "cancelled", "Stopping": "running"}


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
    return page([_job(job, call) for job in call.service.jobs.all(customization.KIND)], request, "id")


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
    return page(told, request, "id")


def list_fine_tuning_checkpoints(request: Request, call: Call) -> Request:
    """The checkpoints that a job has written, newest first: folders in S3 which CreateCustomModel takes."""
    job = _find_job(request["fine_tuning_job_id"], call)
    bucket, folder = outputs_of(job)
    begin = f"{folder}checkpoints/"
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
            "id": f"ftckpt-{job.id}-{steps[name]}", "object": "fine_tuning.job.checkpoint", "created_at": seconds(job.ended_at),
            "fine_tuned_model_checkpoint": f"s3://{bucket}/{begin}{name}/", "fine_tuning_job_id": _id(job),
            "step_number": steps[name], "metrics": {"step": steps[name], **metrics.get(steps[name], {})},
        }
        for name in names
    ]  # fmt: skip
    return page(shown, request, "id")


def _find_job(identifier: str, call: Call) -> Job:
    """By OpenAI's id, or as the first door names it."""
    found = call.service.jobs.find(customization.KIND, identifier)
    return found or jobs.find(customization.KIND, identifier.removeprefix(JOB), call, "fine-tuning job")


def _id(job: Job) -> str:
    """OpenAI's id: the name of a job that this door began, which Bedrock's operations take, too."""
    return job.name if job.name.startswith(JOB) else f"{JOB}{job.id}"


def _uri(file: str, call: Call) -> str:
    """Where a file's bytes lie; an S3 URI is one already."""
    return file if file.startswith("s3://") else f"s3://{BUCKET}/{find_file(file, call).key}"


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
        "id": _id(job), "object": "fine_tuning.job", "created_at": seconds(job.created_at),
        "finished_at": seconds(job.ended_at), "model": asked["base_model"],
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
