"""Custom models."""

from typing import Any

from outcrop.api.call import Call
from outcrop.api.customization import KIND, names_to_come, training_metrics, validation_metrics
from outcrop.api.lists import page
from outcrop.api.tags import read_tags
from outcrop.clock import now
from outcrop.errors import Conflict, Invalid, Unsupported
from outcrop.jobs import Job
from outcrop.names import short_id
from outcrop.registry import CustomModel
from outcrop.storage import Taken

Request = dict[str, Any]

CREATE_KIND = "create-custom-model"


def get_custom_model(request: Request, call: Call) -> Request:
    """A custom model with what made it."""
    model = call.service.registry.custom_model(request["modelIdentifier"])
    validators = [{"s3Uri": uri} for uri in model.validation_uris]
    return {
        "modelArn": model.arn,
        "modelName": model.name,
        "jobName": model.job_name or None,
        "jobArn": model.job_arn or None,
        "baseModelArn": _base_arn(model, call),
        "customizationType": model.customization,
        "hyperParameters": model.hyperparameters or None,
        "trainingDataConfig": model.training_config or ({"s3Uri": model.training_uri} if model.training_uri else None),
        "customizationConfig": model.customization_config or None,
        "validationDataConfig": {"validators": validators} if model.job_arn else None,
        "outputDataConfig": {"s3Uri": model.output_uri} if model.output_uri else None,
        "trainingMetrics": training_metrics(model.training_loss),
        "validationMetrics": validation_metrics(model.validation_losses),
        "creationTime": model.created_at,
        "modelStatus": model.status,
        "failureMessage": model.failure or None,
    }


def list_custom_models(request: Request, call: Call) -> Request:
    """Custom models, newest first."""
    models = call.service.registry.custom.all()
    wanted = request.get("baseModelArnEquals") or request.get("foundationModelArnEquals")
    if wanted is not None:
        models = [
            model for model in models if wanted in (_base_arn(model, call), call.names.foundation_model(model.base))
        ]
    if request.get("modelStatus") is not None:
        models = [model for model in models if model.status == request["modelStatus"]]
    if request.get("isOwned") is False:
        models = []
    found, following = page(models, request)
    summaries = [
        {
            "modelArn": model.arn,
            "modelName": model.name,
            "creationTime": model.created_at,
            "baseModelArn": _base_arn(model, call),
            "baseModelName": model.base,
            "customizationType": model.customization,
            "ownerAccountId": call.names.account,
            "modelStatus": model.status,
        }
        for model in found
    ]
    return {"modelSummaries": summaries, "nextToken": following}


def _base_arn(model: CustomModel, call: Call) -> str:
    imported = call.service.registry.find_imported(model.base)
    return model.parent or (imported.arn if imported else call.names.foundation_model(model.base))


def delete_custom_model(request: Request, call: Call) -> Request:
    """Remove a model and its weights. Raises Conflict while throughput, a deployment or a further model needs it."""
    service = call.service
    model = service.registry.custom_model(request["modelIdentifier"])
    users = service.serving.users_of(model.arn)
    users += [other.name for other in service.registry.custom.all() if other.parent == model.arn]
    users += [
        job.name
        for job in [*service.jobs.all(KIND), *service.jobs.all("sweep")]
        if not job.ended_at and job.request["base"] == model.arn
    ]
    if users:
        raise Conflict(f"The custom model {model.name} is in use by {', '.join(users[:5])}; delete them first")
    if model.status == "Creating":
        raise Conflict(f"The custom model {model.name} is being created; try again when it is done")
    service.registry.delete_custom(model)
    return {}


def create_custom_model(request: Request, call: Call) -> Request:
    """Make a model of a folder in S3: adapters in PEFT's layout on a known base, or a whole model with its tokenizer.

    Answers at once; the folder is copied and checked in the background, and the model is then Active or Failed.
    Raises Conflict, Invalid, Unsupported.
    """
    if request.get("modelKmsKeyArn"):
        raise Unsupported("modelKmsKeyArn: Outcrop does not encrypt models with KMS keys; leave it out")
    if request.get("customModelDataSource"):
        raise Unsupported(
            "customModelDataSource: SageMaker model packages are not read; give modelSourceConfig.s3DataSource"
        )
    uri = ((request.get("modelSourceConfig") or {}).get("s3DataSource") or {}).get("s3Uri")
    if uri is None:
        raise Invalid("modelSourceConfig.s3DataSource.s3Uri is needed: the folder in S3 that holds the model")
    return {"modelArn": call.once(CREATE_KIND, request, lambda: _create(request, uri, call))}


def _create(request: Request, uri: str, call: Call) -> str:
    identifier = short_id()
    model = CustomModel(
        id=identifier, arn=call.names.arn("custom-model", f"imported/{identifier}"), name=request["modelName"], base="",
        kind="", customization="IMPORTED", created_at=now(), tags=read_tags(request.get("modelTags")), status="Creating",
        lineage={"source": uri},
    )  # fmt: skip
    registry = call.service.registry
    if model.name in names_to_come(call):
        raise Conflict(f"A job in progress will make a custom model named {model.name}; choose another modelName")
    try:
        registry.custom.add(model)
    except Taken:
        raise Conflict(f"There is already a custom model named {model.name}; choose another modelName") from None
    job = Job(
        id=identifier, arn=model.arn, name=f"create-{identifier}", kind=CREATE_KIND, created_at=now(), modified_at=now(),
        request={"model": identifier, "uri": uri},
    )  # fmt: skip
    call.service.jobs.submit(job)
    return model.arn
