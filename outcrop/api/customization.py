"""Customization jobs."""

from typing import Any

from outcrop import hyperparameters
from outcrop.api import jobs
from outcrop.api.call import Call, Service
from outcrop.api.lists import page
from outcrop.api.tags import read_tags
from outcrop.clock import now
from outcrop.errors import Conflict, Invalid, NotFound, Unsupported
from outcrop.jobs import Job, Phase
from outcrop.logs import read_filter
from outcrop.names import short_id
from outcrop.registry import Weights

Request = dict[str, Any]

KIND = "customization"
TYPES = ("FINE_TUNING", "CONTINUED_PRE_TRAINING", "DISTILLATION")
PHASES = {"validation": "validationDetails", "dataProcessing": "dataProcessingDetails", "training": "trainingDetails"}


def create_model_customization_job(request: Request, call: Call) -> Request:
    """Accept a customization job and queue it. Answers with the job's ARN.

    The wire has already checked everything the service model states. Here is checked what it cannot know: that the base
    model exists, that the names are free, that the hyperparameters fit. The training data is not opened; the job's first
    station reads it and reports bad lines by number.

    Raises NotFound, Conflict, Invalid, Unsupported.
    """
    return {"jobArn": call.once(KIND, request, lambda: _create(request, call))}


def _create(request: Request, call: Call) -> str:
    registry = call.service.registry
    customization = request.get("customizationType", "FINE_TUNING")
    if customization not in TYPES:
        raise Unsupported(f"customizationType {customization} is not implemented by Outcrop; {' and '.join(TYPES)} are")
    if request.get("customModelKmsKeyId"):
        raise Unsupported("customModelKmsKeyId: Outcrop does not encrypt models with KMS keys; leave it out")
    training = request["trainingDataConfig"]
    if bool(training.get("s3Uri")) == bool(training.get("invocationLogsConfig")):
        raise Invalid("trainingDataConfig must have s3Uri or, for a distillation, invocationLogsConfig; one of them")
    training_uri = training.get("s3Uri") or ""
    validators = (request.get("validationDataConfig") or {}).get("validators") or []
    given = request.get("hyperParameters") or {}
    if validators and "evalPercentage" in given:
        raise Invalid("hyperParameters.evalPercentage is only used without validation data, but validators are given")
    output_uri = request["outputDataConfig"]["s3Uri"]
    jobs.check_output(output_uri, "outputDataConfig.s3Uri", call)

    parent = registry.find_custom(request["baseModelIdentifier"])
    imported = None if parent else registry.find_imported(request["baseModelIdentifier"])
    if imported is not None and imported.kind == "adapter":
        raise Unsupported(f"{imported.name} is an imported adapter, which is not tuned further; tune {imported.base}")
    base = registry.base(parent.base if parent else request["baseModelIdentifier"])
    options = hyperparameters.read(given, base.num_parameters, customization)
    distillation = _distillation(request, customization, options, call)
    if options["distillationLoss"] == "distribution":
        _check_same_tokens(registry.weights(parent.arn if parent else base.id), distillation, call)
    name, model_name = request["jobName"], request["customModelName"]
    if registry.custom.named(model_name) is not None or model_name in names_to_come(call):
        raise Conflict(f"There is already a custom model named {model_name}; choose another customModelName")

    identifier, model_id = short_id(), short_id()
    job = Job(
        id=identifier,
        arn=call.names.arn("model-customization-job", f"{base.id}/{identifier}"),
        name=name,
        kind=KIND,
        created_at=now(),
        modified_at=now(),
        phases={phase: Phase() for phase in PHASES},
        tags=read_tags(request.get("jobTags")),
        request={
            "base": parent.arn if parent else base.id,
            "base_model": base.id,
            "base_arn": parent.arn if parent else _base_arn(base.id, call),
            "context": base.context,
            "num_parameters": base.num_parameters,
            "customization": customization,
            "model_id": model_id,
            "model_arn": call.names.arn("custom-model", f"{base.id}/{model_id}"),
            "model_name": model_name,
            "model_tags": read_tags(request.get("customModelTags")),
            "role": request["roleArn"],
            "training_uri": training_uri,
            "training_config": training,
            "distillation": distillation,
            "customization_config": request.get("customizationConfig"),
            "validation_uris": [validator["s3Uri"] for validator in validators],
            "output_uri": output_uri,
            "hyperParameters": given,
            "token": request.get("clientRequestToken"),
            "vpcConfig": request.get("vpcConfig"),
        },
    )
    return jobs.submit(job, call)


def _distillation(request: Request, customization: str, options: hyperparameters.Values, call: Call) -> Request | None:
    """What a distillation asks for; None for other jobs. Raises Invalid, NotFound for a teacher that is not there."""
    config = (request.get("customizationConfig") or {}).get("distillationConfig")
    logs = request["trainingDataConfig"].get("invocationLogsConfig")
    if customization != "DISTILLATION":
        if request.get("customizationConfig") or logs:
            name = (
                "customizationConfig"
                if request.get("customizationConfig")
                else "trainingDataConfig.invocationLogsConfig"
            )
            raise Invalid(f"{name} is for customizationType DISTILLATION; this job's is {customization}")
        return None
    if config is None:
        raise Invalid("customizationConfig.distillationConfig.teacherModelConfig is missing; it names the teacher")
    teacher = config["teacherModelConfig"]["teacherModelIdentifier"]
    target = call.service.serving.target(teacher)
    if target.pooling is not None:
        raise Invalid(f"{teacher} is an embedding model; it cannot teach")
    if logs is not None:
        read_filter(
            logs.get("requestMetadataFilters"), "trainingDataConfig.invocationLogsConfig.requestMetadataFilters"
        )
    return {
        "teacher": teacher,
        "teacher_model": target.weights.model_id,
        "max_tokens": config["teacherModelConfig"].get("maxResponseLengthForInference"),
        "logs_uri": logs["invocationLogSource"]["s3Uri"] if logs else "",
        "uses_answers": bool(logs and logs.get("usePromptResponse")),
        "filters": logs.get("requestMetadataFilters") if logs else None,
        "pairs": options["distillationPairs"],
    }


def _check_same_tokens(student: Weights, distillation: Request | None, call: Call) -> None:
    """Raise Invalid unless teacher and student write the same tokens."""
    registry = call.service.registry
    teacher = registry.weights(distillation["teacher_model"]) if distillation else student
    if registry.check_renderer(teacher) != registry.check_renderer(student):
        raise Invalid(
            "hyperParameters.distillationLoss distribution: teacher and student have different tokenizers or templates; use answers"
        )


def _base_arn(base: str, call: Call) -> str:
    imported = call.service.registry.find_imported(base)
    return imported.arn if imported else call.names.foundation_model(base)


def names_to_come(call: Call) -> set[str]:
    """Names of custom models that jobs in progress will make; nobody else may take them."""
    return {job.request["model_name"] for job in call.service.jobs.all(KIND) if not job.ended_at}


def get_model_customization_job(request: Request, call: Call) -> Request:
    """A job with all that is known of it."""
    job = find_job(request["jobIdentifier"], call)
    asked, result = job.request, job.result
    effective = result.get("hyperParameters") or hyperparameters.as_text(
        hyperparameters.read(asked["hyperParameters"], asked["num_parameters"], asked["customization"])
    )
    return {
        "jobArn": job.arn,
        "jobName": job.name,
        "outputModelName": asked["model_name"],
        "outputModelArn": result.get("model_arn"),
        "clientRequestToken": asked["token"],
        "roleArn": asked["role"],
        "status": job.status,
        "statusDetails": _status_details(job),
        "failureMessage": job.failure or None,
        "creationTime": job.created_at,
        "lastModifiedTime": job.modified_at,
        "endTime": job.ended_at,
        "baseModelArn": asked["base_arn"],
        "hyperParameters": effective,
        "trainingDataConfig": asked.get("training_config") or {"s3Uri": asked["training_uri"]},
        "customizationConfig": asked.get("customization_config"),
        "validationDataConfig": {"validators": [{"s3Uri": uri} for uri in asked["validation_uris"]]},
        "outputDataConfig": {"s3Uri": asked["output_uri"]},
        "customizationType": asked["customization"],
        "trainingMetrics": training_metrics(result.get("training_loss")),
        "validationMetrics": validation_metrics(result.get("validation_losses")),
        "vpcConfig": asked["vpcConfig"],
    }


def training_metrics(loss: float | None) -> Request | None:
    """Bedrock's trainingMetrics."""
    return None if loss is None else {"trainingLoss": loss}


def validation_metrics(losses: list[float] | None) -> list[Request] | None:
    """Bedrock's validationMetrics, one for each validator."""
    return [{"validationLoss": loss} for loss in losses] if losses else None


def _status_details(job: Job) -> Request:
    return {
        shown: {"status": phase.status, "creationTime": phase.begun_at, "lastModifiedTime": phase.changed_at}
        for name, shown in PHASES.items()
        if (phase := job.phases.get(name)) is not None
    }


def list_model_customization_jobs(request: Request, call: Call) -> Request:
    """Jobs, newest first."""
    found, following = page(call.service.jobs.all(KIND), request, lambda job: job.status)
    summaries = [
        {
            "jobArn": job.arn,
            "jobName": job.name,
            "baseModelArn": job.request["base_arn"],
            "status": job.status,
            "statusDetails": _status_details(job),
            "creationTime": job.created_at,
            "lastModifiedTime": job.modified_at,
            "endTime": job.ended_at,
            "customModelArn": job.result.get("model_arn"),
            "customModelName": job.request["model_name"],
            "customizationType": job.request["customization"],
        }
        for job in found
    ]
    return {"modelCustomizationJobSummaries": summaries, "nextToken": following}


def stop_model_customization_job(request: Request, call: Call) -> Request:
    """Ask a job to stop. Unlike at AWS its best checkpoint is kept as the custom model. Raises Conflict when it is over."""
    jobs.stop(find_job(request["jobIdentifier"], call), call)
    return {}


def resume_model_customization_job(request: Request, call: Call) -> Request:
    """An extension: go on with a job that was stopped or failed, from its last kept step.

    Raises Conflict when it is in progress or completed, and while the model that its stop left is in use.
    """
    job = resume(request["jobIdentifier"], call.service)
    return {"jobArn": job.arn, "status": job.status}


def resume(identifier: str, service: Service) -> Job:
    """The same, for the command line."""
    job = service.jobs.find(KIND, identifier)
    if job is None:
        raise NotFound(f"There is no model customization job {identifier!r}")
    model = service.registry.find_custom(job.request["model_name"])
    if model is not None and model.id != job.request["model_id"]:
        raise Conflict(f"there is another custom model {model.name} by now; delete it first")
    if model is not None and (users := service.serving.users_of(model.arn)):
        raise Conflict(f"The custom model {model.name} is in use by {', '.join(users[:5])}; delete them first")
    return service.jobs.resume(job)


def list_job_events(request: Request, call: Call) -> Request:
    """An extension: a job's events from the one after `after` on, with its status."""
    job = find_job(request["jobIdentifier"], call)
    after = request.get("after", "0")
    if not (str(after).isascii() and str(after).isdigit()):
        raise Invalid(f"after is {after!r}; it must be an event's number")
    return {"status": job.status, "failureMessage": job.failure, "events": call.service.jobs.events(job.id, int(after))}


def find_job(identifier: str, call: Call) -> Job:
    """A job by ARN, id or name. Raises NotFound."""
    return jobs.find(KIND, identifier, call, "model customization job")
