"""What was proven of a deployment when it was brought up: an extension."""

from typing import Any

import msgspec

from outcrop.api.call import Call
from outcrop.errors import NotFound

Request = dict[str, Any]


def get_certificate(request: Request, call: Call) -> Request:
    """Whether what a deployment or provisioned throughput serves is what was trained, and how that is known."""
    serving, identifier = call.service.serving, request["identifier"]
    one = serving.find_deployment(identifier) or serving.find_provisioned(identifier)
    if one is None:
        raise NotFound(f"There is no deployment or provisioned throughput {identifier!r}")
    certificate = None if one.certificate is None else msgspec.to_builtins(one.certificate)
    return {"name": one.name, "modelArn": one.model_arn, "status": one.status, "failureMessage": one.failure or None,
            "certificate": certificate}  # fmt: skip
