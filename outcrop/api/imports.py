"""Model import: jobs, and the models that they leave."""

from typing import Any

from outcrop.api import jobs
from outcrop.api.call import Call
from outcrop.api.lists import page
from outcrop.api.tags import read_tags
from outcrop.clock import now
from outcrop.errors import Conflict, Invalid, NotFound, Unsupported
from outcrop.jobs import Job
from outcrop.names import short_id
from outcrop.registry import ImportedModel

Request = dict[str, Any]
KIND = "import"


def create_model_import_job(request: Request, call: Call) -> Request:
    """Bring a Hugging Face folder in S3, whole or an adapter on a known base; it is checked and tried in the background.

    Raises Conflict, Invalid, Unsupported.
    """
    if request.get("importedModelKmsKeyId"):
        raise Unsupported("importedModelKmsKeyId: Outcrop does not encrypt models with KMS keys; leave it out")
    uri = (request["modelDataSource"].get("s3DataSource") or {}).get("s3Uri")
    if uri is None:
        raise Invalid("modelDataSource.s3DataSource.s3Uri is needed: the folder in S3 that holds the model")
    return {"jobArn": call.once(KIND, request, lambda: _create(request, uri, call))}


def _create(request: Request, uri: str, call: Call) -> str:
    service, name = call.service, request["importedModelName"]
    to_come = {job.request["model_name"] for job in service.jobs.all(KIND) if not job.ended_at}
    if service.registry.imported.named(name) is not None or name in to_come:
        raise Conflict(f"There is already an imported model named {name}; choose another importedModelName")
    if service.registry.find_custom(name) is not None:
        raise Conflict(f"There is a custom model named {name}; choose another importedModelName")
    identifier, model_id = short_id(), short_id()
    job = Job(
        id=identifier, arn=call.names.arn("model-import-job", identifier), name=request["jobName"], kind=KIND,
        created_at=now(), modified_at=now(), tags=read_tags(request.get("jobTags")),
        request={
            "source_uri": uri, "model_id": model_id, "model_arn": call.names.arn("imported-model", model_id),
            "model_name": name, "model_tags": read_tags(request.get("importedModelTags")), "role": request["roleArn"],
            "vpcConfig": request.get("vpcConfig"),
        },
    )  # fmt: skip
    return jobs.submit(job, call)


def get_model_import_job(request: Request, call: Call) -> Request:
    """An import job."""
    job = jobs.find(KIND, request["jobIdentifier"], call, "model import job")
    return {
        **_job_summary(job),
        "roleArn": job.request["role"],
        "modelDataSource": {"s3DataSource": {"s3Uri": job.request["source_uri"]}},
        "failureMessage": job.failure or None,
        "vpcConfig": job.request["vpcConfig"],
    }


def list_model_import_jobs(request: Request, call: Call) -> Request:
    """Import jobs, newest first."""
    found, following = page(call.service.jobs.all(KIND), request, lambda job: job.status)
    return {"modelImportJobSummaries": [_job_summary(job) for job in found], "nextToken": following}


def _job_summary(job: Job) -> Request:
    return {
        "jobArn": job.arn,
        "jobName": job.name,
        "status": job.status,
        "creationTime": job.created_at,
        "lastModifiedTime": job.modified_at,
        "endTime": job.ended_at,
        "importedModelArn": job.result.get("model_arn"),
        "importedModelName": job.request["model_name"],
    }


def get_imported_model(request: Request, call: Call) -> Request:
    """An imported model."""
    model = _find(request["modelIdentifier"], call)
    return {
        **_summary(model),
        "jobName": model.job_name,
        "jobArn": model.job_arn,
        "modelDataSource": {"s3DataSource": {"s3Uri": model.source_uri}},
    }


def list_imported_models(request: Request, call: Call) -> Request:
    """Imported models, newest first."""
    found, following = page(call.service.registry.imported.all(), request)
    return {"modelSummaries": [_summary(model) for model in found], "nextToken": following}


def delete_imported_model(request: Request, call: Call) -> Request:
    """Remove an imported model and its files. Raises Conflict while throughput, or a tuned model, needs it."""
    service = call.service
    model = _find(request["modelIdentifier"], call)
    users = service.serving.users_of(model.arn)
    tuning = [*service.jobs.all("customization"), *service.jobs.all("sweep")]
    users += [job.name for job in tuning if not job.ended_at and model.id in job.request["base_model"]]
    if users:
        raise Conflict(f"The imported model {model.name} is in use by {', '.join(users[:5])}; delete them first")
    service.registry.delete_imported(model)
    return {}


def _summary(model: ImportedModel) -> Request:
    return {
        "modelArn": model.arn,
        "modelName": model.name,
        "creationTime": model.created_at,
        "instructSupported": model.has_template,
        "modelArchitecture": model.architecture,
    }


def _find(identifier: str, call: Call) -> ImportedModel:
    model = call.service.registry.find_imported(identifier)
    if model is None:
        raise NotFound(f"There is no imported model {identifier!r}")
    return model
