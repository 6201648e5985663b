"""Custom models on demand."""

from typing import Any

import msgspec

from outcrop.api.call import Call
from outcrop.api.lists import page
from outcrop.api.tags import read_tags
from outcrop.clock import now
from outcrop.errors import Conflict, Invalid, NotFound
from outcrop.names import short_id
from outcrop.registry import CustomModel
from outcrop.serving import Deployment
from outcrop.storage import Taken

Request = dict[str, Any]


def create_custom_model_deployment(request: Request, call: Call) -> Request:
    """Deploy a custom model; Active once its weights are loaded. Raises NotFound, Invalid."""
    arn = call.once("custom-model-deployment", request, lambda: _create(request, call), Invalid)
    return {"customModelDeploymentArn": arn}


def _create(request: Request, call: Call) -> str:
    model = _model(request["modelArn"], call)
    identifier, moment = short_id(), now()
    deployment = Deployment(
        id=identifier, arn=call.names.arn("custom-model-deployment", identifier), name=request["modelDeploymentName"],
        model_arn=model.arn, description=request.get("description", ""), created_at=moment, modified_at=moment,
        tags=read_tags(request.get("tags")),
    )  # fmt: skip
    serving = call.service.serving
    try:
        serving.deployments.add(deployment)
    except Taken:
        raise Invalid(f"There is already a deployment named {deployment.name}; choose another name") from None
    serving.deploy(deployment)
    return deployment.arn


def _model(identifier: str, call: Call) -> CustomModel:
    model = call.service.registry.custom_model(identifier)
    if model.status != "Active":
        raise Invalid(f"the custom model {model.name} is {model.status}; only an Active one can be deployed")
    return model


def get_custom_model_deployment(request: Request, call: Call) -> Request:
    """All about one."""
    one = _find(request["customModelDeploymentIdentifier"], call)
    update = None
    if one.update_status:
        update = {"modelArn": one.update_model_arn or one.model_arn, "updateStatus": one.update_status}
    return {
        "customModelDeploymentArn": one.arn,
        "modelDeploymentName": one.name,
        "modelArn": one.model_arn,
        "createdAt": one.created_at,
        "status": one.status,
        "description": one.description or None,
        "updateDetails": update,
        "failureMessage": one.failure or None,
        "lastUpdatedAt": one.modified_at,
    }


def list_custom_model_deployments(request: Request, call: Call) -> Request:
    """All, newest first."""
    everything = call.service.serving.deployments.all()
    wanted = request.get("modelArnEquals")
    if wanted is not None:
        everything = [one for one in everything if one.model_arn == wanted]
    found, following = page(everything, request, lambda one: one.status, created="created")
    summaries = [
        {
            "customModelDeploymentArn": one.arn,
            "customModelDeploymentName": one.name,
            "modelArn": one.model_arn,
            "createdAt": one.created_at,
            "status": one.status,
            "lastUpdatedAt": one.modified_at,
            "failureMessage": one.failure or None,
        }
        for one in found
    ]
    return {"modelDeploymentSummaries": summaries, "nextToken": following}


def update_custom_model_deployment(request: Request, call: Call) -> Request:
    """Another model under the same ARN; the old one answers until the new one is loaded. Raises Invalid, NotFound."""
    one = _find(request["customModelDeploymentIdentifier"], call)
    model = _model(request["modelArn"], call)

    def change(current: Deployment) -> Deployment:
        if current.status != "Active" or current.update_status == "Updating":
            state = "being updated" if current.update_status == "Updating" else current.status
            raise Invalid(f"the deployment {current.name} is {state}; only an Active one can be updated")
        return msgspec.structs.replace(
            current, update_model_arn=model.arn, update_status="Updating", failure="", modified_at=now()
        )

    changed = call.service.serving.deployments.change(one.id, change)
    if changed is not None:
        call.service.serving.deploy(changed)
    return {"customModelDeploymentArn": one.arn}


def delete_custom_model_deployment(request: Request, call: Call) -> Request:
    """Remove a deployment; the model stays. Raises Conflict while it is being updated."""
    one = _find(request["customModelDeploymentIdentifier"], call)
    if one.update_status == "Updating":
        raise Conflict(f"the deployment {one.name} is being updated; try again when it is done")
    call.service.serving.deployments.remove(one.id)
    return {}


def _find(identifier: str, call: Call) -> Deployment:
    found = call.service.serving.find_deployment(identifier)
    if found is None:
        raise NotFound(f"There is no custom model deployment {identifier!r}")
    return found
