"""The catalogue of base models."""

from typing import Any

from outcrop.api.call import Call
from outcrop.registry import BaseModel

Request = dict[str, Any]

CUSTOMIZATIONS = ["FINE_TUNING", "CONTINUED_PRE_TRAINING"]
INFERENCE = ["ON_DEMAND", "PROVISIONED"]
# AWS's limit of modelName and providerName.
MOST_NAME = 20


def list_foundation_models(request: Request, call: Call) -> Request:
    """Every base model that the filters leave."""
    wanted = {
        "byCustomizationType": CUSTOMIZATIONS, "byOutputModality": ["TEXT"], "byInferenceType": INFERENCE,
    }  # fmt: skip
    if any(request.get(name) is not None and request[name] not in offered for name, offered in wanted.items()):
        return {"modelSummaries": []}
    provider = request.get("byProvider")
    models = call.service.registry.base_models()
    return {
        "modelSummaries": [
            _details(model, call) for model in models if provider is None or provider.lower() == model.provider.lower()
        ]
    }


def get_foundation_model(request: Request, call: Call) -> Request:
    """One base model."""
    return {"modelDetails": _details(call.service.registry.base(request["modelIdentifier"]), call)}


def get_foundation_model_availability(request: Request, call: Call) -> Request:
    """What is in the catalogue is available."""
    model = call.service.registry.base(request["modelId"])
    return {
        "modelId": model.id,
        "agreementAvailability": {"status": "AVAILABLE"},
        "authorizationStatus": "AUTHORIZED",
        "entitlementAvailability": "AVAILABLE",
        "regionAvailability": "AVAILABLE",
    }


def _details(model: BaseModel, call: Call) -> Request:
    return {
        "modelArn": call.names.foundation_model(model.id),
        "modelId": model.id,
        "modelName": model.name.partition(".")[2][:MOST_NAME],
        "providerName": model.provider[:MOST_NAME],
        "inputModalities": ["TEXT"],
        "outputModalities": ["TEXT"],
        "responseStreamingSupported": True,
        "customizationsSupported": CUSTOMIZATIONS,
        "inferenceTypesSupported": INFERENCE,
        "modelLifecycle": {"status": "ACTIVE"},
    }
