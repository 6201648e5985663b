"""An error as the service that was asked would say it."""

import msgspec
from botocore.model import OperationModel

from outcrop.errors import Invalid, OutcropError
from outcrop.wire import query, s3
from outcrop.wire.incoming import Incoming, Outgoing
from outcrop.wire.models import QUERY_SERVICES

# For errors that come before the operation is known, or that an operation's model forgets to declare (CreateModelCopyJob
# declares no ValidationException).
STATUSES = {
    "ValidationException": 400, "AccessDeniedException": 403, "ResourceNotFoundException": 404, "ConflictException": 409,
    "ThrottlingException": 429,
}  # fmt: skip
# Clients that heed it come again after this.
RETRY_AFTER_S = {"ThrottlingException": "1", "ModelNotReadyException": "5"}


def refused(service: str, operation: OperationModel | None, error: OutcropError, incoming: Incoming) -> Outgoing:
    """An error in the service's own form, with the status that its model declares."""
    if service == "s3":
        answer = s3.refuse(error, incoming.raw_path, incoming.request_id)
        return Outgoing(answer.status, answer.headers, answer.body)
    if service in QUERY_SERVICES:
        status, document = query.refuse(error, incoming.request_id)
        return Outgoing(status, {"content-type": query.CONTENT_TYPE}, [document])
    if operation is None:  # not yet routed: the four services agree on these
        return Outgoing(STATUSES.get(error.code, 500), *error_document(error))
    declared = {shape.name: shape.metadata.get("error", {}) for shape in operation.error_shapes}
    if error.code not in declared and error.code != "InternalServerException" and "ValidationException" in declared:
        error = Invalid(error.message)  # AWS, too, falls back on it where an operation declares nothing closer
    status = declared.get(error.code, {}).get("httpStatusCode", STATUSES.get(error.code, 500))
    return Outgoing(status, *error_document(error))


def error_document(error: OutcropError) -> tuple[dict[str, str], list[bytes]]:
    """Headers and body of an error in rest-json."""
    document = {"message": error.message, **error.members}
    return json_headers(error), [msgspec.json.encode(document)]


def json_headers(error: OutcropError) -> dict[str, str]:
    """Of an error in JSON."""
    headers = {"content-type": "application/json", "x-amzn-errortype": error.code}
    if error.code in RETRY_AFTER_S:
        headers["retry-after"] = RETRY_AFTER_S[error.code]
    return headers
