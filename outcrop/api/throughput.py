"""Provisioned throughput: so many requests of one model at once, reserved."""

from datetime import timedelta
from typing import Any

import msgspec

from outcrop.api.call import Call
from outcrop.api.lists import page
from outcrop.api.tags import read_tags
from outcrop.clock import now
from outcrop.errors import Conflict, Invalid, NotFound
from outcrop.names import short_id
from outcrop.serving import Provisioned
from outcrop.storage import Taken

Request = dict[str, Any]

TERMS = {"OneMonth": timedelta(days=30), "SixMonths": timedelta(days=182)}


def create_provisioned_model_throughput(request: Request, call: Call) -> Request:
    """Reserve places for a base or custom model; InService once its weights are loaded. Raises NotFound, Invalid."""
    arn = call.once("provisioned-model", request, lambda: _create(request, call), Invalid)
    return {"provisionedModelArn": arn}


def _create(request: Request, call: Call) -> str:
    model_arn, base_arn = _model(request["modelId"], call)
    units = request["modelUnits"]
    free = call.service.serving.free_units(model_arn)
    if units > free:
        raise Invalid(
            f"modelUnits is {units}; {free} of the {call.service.settings.engine_slots} places at this model's engine are "
            "free (setting engine_slots)"
        )
    commitment, moment, identifier = request.get("commitmentDuration", ""), now(), short_id()
    provisioned = Provisioned(
        id=identifier, arn=call.names.arn("provisioned-model", identifier), name=request["provisionedModelName"],
        model_arn=model_arn, desired_model_arn=model_arn, base_arn=base_arn, units=units, commitment=commitment,
        commitment_ends_at=moment + TERMS[commitment] if commitment else None, created_at=moment, modified_at=moment,
        tags=read_tags(request.get("tags")),
    )  # fmt: skip
    serving = call.service.serving
    try:
        serving.provisioned.add(provisioned)
    except Taken:
        raise Invalid(f"There is already a provisioned model named {provisioned.name}; choose another name") from None
    serving.bring_up(provisioned)
    return provisioned.arn


def _model(identifier: str, call: Call) -> tuple[str, str]:
    """(ARN of the model, ARN of its foundation model). Raises NotFound."""
    registry = call.service.registry
    custom = registry.find_custom(identifier)
    imported = registry.find_imported(identifier) if custom is None else None
    if imported is not None:
        return imported.arn, call.names.foundation_model(imported.base) if imported.base else imported.arn
    if custom is None:
        arn = call.names.foundation_model(registry.base(identifier).id)
        return arn, arn
    if custom.status != "Active":
        raise Invalid(f"the custom model {custom.name} is {custom.status}")
    return custom.arn, call.names.foundation_model(custom.base)


def get_provisioned_model_throughput(request: Request, call: Call) -> Request:
    """All about one."""
    one = _find(request["provisionedModelId"], call)
    return {
        **_summary(one),
        "failureMessage": one.failure or None,
    }


def _summary(one: Provisioned) -> Request:
    return {
        "modelUnits": one.units,
        "desiredModelUnits": one.units,
        "provisionedModelName": one.name,
        "provisionedModelArn": one.arn,
        "modelArn": one.model_arn,
        "desiredModelArn": one.desired_model_arn,
        "foundationModelArn": one.base_arn,
        "status": one.status,
        "creationTime": one.created_at,
        "lastModifiedTime": one.modified_at,
        "commitmentDuration": one.commitment or None,
        "commitmentExpirationTime": one.commitment_ends_at,
    }


def list_provisioned_model_throughputs(request: Request, call: Call) -> Request:
    """All, newest first."""
    everything = call.service.serving.provisioned.all()
    wanted = request.get("modelArnEquals")
    if wanted is not None:
        everything = [one for one in everything if one.model_arn == wanted]
    found, following = page(everything, request, lambda one: one.status)
    return {"provisionedModelSummaries": [_summary(one) for one in found], "nextToken": following}


def update_provisioned_model_throughput(request: Request, call: Call) -> Request:
    """Another name, or another model: the custom model's base or one tuned from the same base. Raises Invalid, NotFound.

    The old model answers until the new one is loaded.
    """
    one = _find(request["provisionedModelId"], call)
    wanted_model, wanted_name = request.get("desiredModelId"), request.get("desiredProvisionedModelName")
    if wanted_model is None and wanted_name is None:
        raise Invalid("give desiredProvisionedModelName, desiredModelId or both")
    arn = one.model_arn
    if wanted_model is not None:
        arn, base_arn = _model(wanted_model, call)
        if base_arn.rpartition("/")[2] != one.base_arn.rpartition("/")[2]:
            raise Invalid(
                f"{wanted_model} is not tuned from {one.base_arn}; only its base or a sibling can take its place"
            )

    def change(current: Provisioned) -> Provisioned:
        if current.status != "InService":
            raise Invalid(
                f"the provisioned model {current.name} is {current.status}; only one InService can be updated"
            )
        status = "Updating" if arn != current.model_arn else current.status
        return msgspec.structs.replace(
            current, name=wanted_name or current.name, desired_model_arn=arn, status=status, modified_at=now()
        )

    try:
        changed = call.service.serving.provisioned.change(one.id, change)
    except Taken:
        raise Invalid(f"There is already a provisioned model named {wanted_name}; choose another name") from None
    if changed is not None and changed.status == "Updating":
        call.service.serving.bring_up(changed)
    return {}


def delete_provisioned_model_throughput(request: Request, call: Call) -> Request:
    """Give the places back; the model stays. Raises Conflict while updating and inside a commitment's term."""
    one = _find(request["provisionedModelId"], call)
    if one.status == "Updating":
        raise Conflict(f"the provisioned model {one.name} is being updated; try again when it is InService")
    if one.commitment_ends_at is not None and one.commitment_ends_at > now():
        ends = one.commitment_ends_at.strftime("%Y-%m-%d")
        raise Conflict(f"the provisioned model {one.name} is committed ({one.commitment}) until {ends}")
    call.service.serving.release(one)
    call.service.serving.provisioned.remove(one.id)
    return {}


def _find(identifier: str, call: Call) -> Provisioned:
    found = call.service.serving.find_provisioned(identifier)
    if found is None:
        raise NotFound(f"There is no provisioned model {identifier!r}")
    return found
