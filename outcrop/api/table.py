"""Which function serves which operation: the one whose name is the operation's in snake case."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from botocore import xform_name

from outcrop.api import (
    batch,
    catalogue,
    certificates,
    custom_models,
    customization,
    data_checks,
    deployments,
    evaluation,
    iam,
    imports,
    logging,
    runtime,
    s3,
    sts,
    sweeps,
    tags,
    throughput,
)
from outcrop.api.call import Call, Service
from outcrop.api.openai import answers, files, fine_tuning
from outcrop.wire import Context
from outcrop.wire.app import Function
from outcrop.wire.models import service_model

MODULES: dict[str, tuple[ModuleType, ...]] = {
    "bedrock": (
        catalogue,
        customization,
        custom_models,
        imports,
        deployments,
        throughput,
        batch,
        evaluation,
        logging,
        tags,
    ),
    "bedrock-runtime": (runtime,),
    "bedrock-agent": (),
    "bedrock-agent-runtime": (),
    "s3": (s3,),
    "sts": (sts,),
    "iam": (iam,),
}
EXTENSIONS = {
    ("GET", "/model-customization-jobs/{jobIdentifier}/events"): customization.list_job_events,
    ("POST", "/model-customization-jobs/{jobIdentifier}/resume"): customization.resume_model_customization_job,
    ("GET", "/model-certificates/{identifier}"): certificates.get_certificate,
    ("POST", "/data-checks"): data_checks.create_data_check,
    ("POST", "/model-customization-sweeps"): sweeps.create_model_customization_sweep,
    ("GET", "/model-customization-sweeps"): sweeps.list_model_customization_sweeps,
    ("GET", "/model-customization-sweeps/{sweepIdentifier}"): sweeps.get_model_customization_sweep,
    ("POST", "/model-customization-sweeps/{sweepIdentifier}/stop"): sweeps.stop_model_customization_sweep,
}

SECOND_DOOR = {
    ("GET", "/models"): answers.list_models,
    ("GET", "/models/{model}"): answers.retrieve_model,
    ("DELETE", "/models/{model}"): answers.delete_model,
    ("POST", "/chat/completions"): answers.create_chat_completion,
    ("POST", "/completions"): answers.create_completion,
    ("POST", "/embeddings"): answers.create_embeddings,
    ("POST", "/files"): files.create_file,
    ("GET", "/files"): files.list_files,
    ("GET", "/files/{file_id}"): files.retrieve_file,
    ("GET", "/files/{file_id}/content"): files.retrieve_file_content,
    ("DELETE", "/files/{file_id}"): files.delete_file,
    ("POST", "/fine_tuning/jobs"): fine_tuning.create_fine_tuning_job,
    ("GET", "/fine_tuning/jobs"): fine_tuning.list_fine_tuning_jobs,
    ("GET", "/fine_tuning/jobs/{fine_tuning_job_id}"): fine_tuning.retrieve_fine_tuning_job,
    ("POST", "/fine_tuning/jobs/{fine_tuning_job_id}/cancel"): fine_tuning.cancel_fine_tuning_job,
    ("GET", "/fine_tuning/jobs/{fine_tuning_job_id}/events"): fine_tuning.list_fine_tuning_events,
    ("GET", "/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints"): fine_tuning.list_fine_tuning_checkpoints,
}


def implemented() -> dict[tuple[str, str], Callable[[dict[str, Any], Call], dict[str, Any]]]:
    """(service, operation) -> its function, for all that are done."""
    return {
        (service, operation): getattr(module, xform_name(operation))
        for service, modules in MODULES.items()
        for operation in service_model(service).operation_names
        for module in modules
        if hasattr(module, xform_name(operation))
    }


def functions(service: Service) -> dict[tuple[str, str], Function]:
    """The same, bound to an installation, as the wire calls them."""
    return {key: _bound(service, function) for key, function in implemented().items()}


def extensions(service: Service) -> dict[tuple[str, str], Function]:
    """Our own paths beside AWS's."""
    return {key: _bound(service, function) for key, function in EXTENSIONS.items()}


def second_door(service: Service) -> dict[tuple[str, str], Callable[[dict[str, Any], Context], Any]]:
    """The paths in OpenAI's dialect."""
    return {key: _bound(service, function) for key, function in SECOND_DOOR.items()}


def _bound(
    service: Service, function: Callable[[dict[str, Any], Call], Any]
) -> Callable[[dict[str, Any], Context], Any]:
    def call(request: dict[str, Any], context: Context) -> Any:
        return function(request, Call(service, context))

    call.__name__ = function.__name__
    return call
