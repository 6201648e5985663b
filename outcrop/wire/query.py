"""The query protocol of STS and IAM: a form in, XML out."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from botocore.model import ListShape, OperationModel, StructureShape

from outcrop.errors import Invalid, OutcropError
from outcrop.wire import xml
from outcrop.wire.models import QUERY_SERVICES, service_model
from outcrop.wire.shapes import Problems, Readers, refusal

CONTENT_TYPE = "text/xml"
# Names that IAM and STS use where Bedrock says otherwise, with their status.
CODES = {
    "ResourceNotFoundException": ("NoSuchEntity", 404),
    "ConflictException": ("EntityAlreadyExists", 409),
    "ValidationException": ("ValidationError", 400),
    "AccessDeniedException": ("AccessDenied", 403),
}
_READERS = {service: Readers(service) for service in QUERY_SERVICES}


def form_of(body: bytes) -> dict[str, str]:
    """The request's fields. Raises Invalid when there are too many or they are not text."""
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=2000))
    except ValueError as error:
        raise Invalid(f"the form in the request body cannot be read: {error}") from None


def service_of(form: Mapping[str, str]) -> str:
    """Which service's API version the form names."""
    versions = {service_model(service).api_version: service for service in QUERY_SERVICES}
    return versions.get(form.get("Version", ""), "sts")


def read(service: str, operation: OperationModel, form: Mapping[str, str]) -> dict[str, Any]:
    """The operation's input, checked. Raises Invalid."""
    shape = operation.input_shape
    if shape is None:
        return {}
    problems: Problems = []
    params = _READERS[service].of(shape)(_structure(shape, form, ""), "", problems)
    if problems:
        raise Invalid(refusal(problems))
    return dict(params)


def _structure(shape: StructureShape, form: Mapping[str, str], prefix: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, member in shape.members.items():
        wire_name = prefix + member.serialization.get("name", name)
        if isinstance(member, StructureShape):
            if any(key.startswith(wire_name + ".") for key in form):
                result[name] = _structure(member, form, wire_name + ".")
        elif isinstance(member, ListShape):
            items = _list(member, form, wire_name + ".member.")
            if items:
                result[name] = items
        elif wire_name in form:
            result[name] = form[wire_name]
    return result


def _list(shape: ListShape, form: Mapping[str, str], prefix: str) -> list[Any]:
    items: list[Any] = []
    while True:
        here = f"{prefix}{len(items) + 1}"
        if isinstance(shape.member, StructureShape) and any(key.startswith(here + ".") for key in form):
            items.append(_structure(shape.member, form, here + "."))
        elif here in form:
            items.append(form[here])
        else:
            return items


def write(operation: OperationModel, result: Mapping[str, Any], request_id: str) -> bytes:
    """The answer."""
    namespace = operation.service_model.metadata.get("xmlNamespace", "")
    shape = operation.output_shape
    wrapped = ""
    if shape is not None:
        name = shape.serialization.get("resultWrapper", f"{operation.name}Result")
        wrapped = f"<{name}>{xml.members(dict(result), shape)}</{name}>"
    meta = f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
    root = f"{operation.name}Response"
    return f'{xml.DECLARATION}<{root} xmlns="{namespace}">{wrapped}{meta}</{root}>'.encode()


def refuse(error: OutcropError, request_id: str) -> tuple[int, bytes]:
    """Status and body of an error."""
    code, status = CODES.get(error.code, ("InternalFailure", 500))
    document = (
        f"{xml.DECLARATION}<ErrorResponse><Error><Type>{'Sender' if status < 500 else 'Receiver'}</Type>"
        f"<Code>{code}</Code><Message>{escape(error.message)}</Message></Error>"
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    return status, document.encode()
