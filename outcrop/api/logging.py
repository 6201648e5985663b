"""The configuration of the invocation log."""

from typing import Any

from outcrop.api.call import Call
from outcrop.errors import Invalid, Unsupported

Request = dict[str, Any]


def put_model_invocation_logging_configuration(request: Request, call: Call) -> Request:
    """Log every model call to S3 from now on. CloudWatch is refused in words.

    Raises Invalid, Unsupported.
    """
    config = dict(request["loggingConfig"])
    if config.get("cloudWatchConfig"):
        raise Unsupported(
            "loggingConfig.cloudWatchConfig: Outcrop has no CloudWatch; it logs to S3 (loggingConfig.s3Config), leave it out"
        )
    place = config.get("s3Config")
    if place is None:
        raise Invalid("loggingConfig.s3Config is missing; it says which bucket the logs go to")
    if call.storage.objects.bucket(place["bucketName"]) is None:
        raise Invalid(f"loggingConfig.s3Config: there is no bucket {place['bucketName']!r}; create it first")
    for kind in ("text", "image", "embedding", "video", "audio"):
        config.setdefault(f"{kind}DataDeliveryEnabled", True)
    call.service.logs.configure(config)
    return {}


def get_model_invocation_logging_configuration(request: Request, call: Call) -> Request:
    """What is logged, and where."""
    return {"loggingConfig": call.service.logs.configuration}


def delete_model_invocation_logging_configuration(request: Request, call: Call) -> Request:
    """Log no more. What was logged stays, and what is on its way arrives."""
    call.service.logs.configure(None)
    return {}
