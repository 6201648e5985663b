"""S3's protocol (rest-xml): which operation a request is, its input, and the answer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape

from botocore.model import ListShape, MapShape, OperationModel, StructureShape

from outcrop.errors import OutcropError, S3Error
from outcrop.wire import xml
from outcrop.wire.body import Body
from outcrop.wire.models import operation_model

NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
MOST_XML_BYTES = 2 << 20

# (method, what the path names, subresource in the query) -> operation. The first row whose subresource is in the
# query wins; "" is the plain request. What is not here answers NotImplemented, with 400 where AWS says 501: clients and
# proxies take a 5xx for a fault of the server and may try again.
OPERATIONS: dict[tuple[str, str, str], str] = {
    ("GET", "service", ""): "ListBuckets",
    ("PUT", "bucket", "policy"): "PutBucketPolicy",
    ("GET", "bucket", "policy"): "GetBucketPolicy",
    ("DELETE", "bucket", "policy"): "DeleteBucketPolicy",
    ("PUT", "bucket", "cors"): "PutBucketCors",
    ("GET", "bucket", "cors"): "GetBucketCors",
    ("DELETE", "bucket", "cors"): "DeleteBucketCors",
    ("GET", "bucket", "location"): "GetBucketLocation",
    ("GET", "bucket", "versioning"): "GetBucketVersioning",
    ("GET", "bucket", "uploads"): "ListMultipartUploads",
    ("GET", "bucket", "list-type"): "ListObjectsV2",
    ("GET", "bucket", ""): "ListObjects",
    ("HEAD", "bucket", ""): "HeadBucket",
    ("PUT", "bucket", ""): "CreateBucket",
    ("DELETE", "bucket", ""): "DeleteBucket",
    ("POST", "bucket", "delete"): "DeleteObjects",
    ("POST", "object", "uploads"): "CreateMultipartUpload",
    ("POST", "object", "uploadId"): "CompleteMultipartUpload",
    ("DELETE", "object", "uploadId"): "AbortMultipartUpload",
    ("GET", "object", "uploadId"): "ListParts",
    ("PUT", "object", "uploadId"): "UploadPart",
    ("GET", "object", ""): "GetObject",
    ("HEAD", "object", ""): "HeadObject",
    ("PUT", "object", ""): "PutObject",
    ("DELETE", "object", ""): "DeleteObject",
}
# Query names that ask for something else than the plain request; any of them without a row above is not done.
SUBRESOURCES = frozenset(
    """accelerate acl analytics attributes cors delete encryption intelligent-tiering inventory legal-hold lifecycle
    list-type location logging metrics notification object-lock ownershipControls policy policyStatus publicAccessBlock
    replication requestPayment restore retention select tagging torrent uploadId uploads versioning versions website
    versionId session metadataTable metadataConfiguration renameObject""".split()
)
ROOTS = {
    "ListBuckets": "ListAllMyBucketsResult", "ListObjects": "ListBucketResult", "ListObjectsV2": "ListBucketResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult", "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "ListParts": "ListPartsResult", "ListMultipartUploads": "ListMultipartUploadsResult", "DeleteObjects": "DeleteResult",
    "CopyObject": "CopyObjectResult", "UploadPartCopy": "CopyPartResult", "GetBucketCors": "CORSConfiguration",
    "GetBucketVersioning": "VersioningConfiguration",
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """Status, headers, and the body in pieces."""

    status: int
    headers: dict[str, str]
    body: Iterable[bytes]


def split_path(raw_path: str, host: str) -> tuple[str, str]:
    """Bucket and key, both decoded; path style, or the bucket in front of `localhost` in the host name."""
    name = host.partition(":")[0]
    path = raw_path.removeprefix("/")
    if name.endswith(".localhost"):
        return name.removesuffix(".localhost"), unquote(path)
    bucket, _, key = path.partition("/")
    return unquote(bucket), unquote(key)


def operation_of(method: str, bucket: str, key: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    """The operation's name. Raises S3Error NotImplemented for what Outcrop's S3 does not do."""
    level = "object" if key else "bucket" if bucket else "service"
    asked = [name for name in query if name in SUBRESOURCES]
    for name in (*asked, *([] if asked else [""])):
        operation = OPERATIONS.get((method, level, name))
        if operation and "x-amz-copy-source" in headers:
            operation = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}.get(operation, operation)
        if operation:
            return operation
    what = f"{method} on a{'n' if level == 'object' else ''} {level}" + (f" with ?{asked[0]}" if asked else "")
    raise S3Error("NotImplemented", f"{what} is not implemented by Outcrop's S3", 400)


def read(
    operation: OperationModel, bucket: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], body: Body
) -> dict[str, Any]:
    """The operation's input; a streamed payload stays a Body. Raises S3Error for what cannot be read."""
    shape = operation.input_shape
    params: dict[str, Any] = {}
    if shape is None:
        return params
    payload = shape.serialization.get("payload")
    for name, member in shape.members.items():
        location = member.serialization.get("location")
        wire_name = member.serialization.get("name", name)
        given: str | None = None
        if location == "uri":
            given = bucket if name == "Bucket" else key
        elif location == "querystring":
            given = query.get(wire_name)
        elif location == "header":
            given = headers.get(wire_name.lower())
        elif location == "headers":
            prefix = wire_name.lower()
            params[name] = {
                header.removeprefix(prefix): value for header, value in headers.items() if header.startswith(prefix)
            }
        elif name == payload:
            params[name] = _payload(member, body)
        if given is not None:
            params[name] = _scalar(given, member, wire_name)
    missing = [name for name in shape.required_members if params.get(name) in (None, "")]
    if missing:
        raise S3Error("InvalidRequest", f"{operation.name} needs {', '.join(missing)}", 400)
    return params


def _payload(member: StructureShape, body: Body) -> Any:
    if member.type_name == "blob":
        return body
    if body.size == 0:
        return {} if isinstance(member, StructureShape) else ""
    if body.size > MOST_XML_BYTES:
        raise S3Error("MaxMessageLengthExceeded", f"the request has {body.size} bytes; at most {MOST_XML_BYTES}", 400)
    if member.type_name == "string":
        return body.read().decode("utf-8", "replace")
    try:
        return xml.value_of(xml.parse(body.read()), member)
    except ValueError as error:
        raise S3Error("MalformedXML", f"The XML you provided was not well-formed or not valid: {error}", 400) from None


def _scalar(given: str, member: Any, wire_name: str) -> Any:
    if isinstance(member, ListShape):
        return [part.strip() for part in given.split(",")]
    try:
        if member.type_name == "timestamp":
            return parsedate_to_datetime(given)
        return xml.scalar(given, member)
    except ValueError:
        raise S3Error("InvalidArgument", f"{given!r} is not a valid value of {wire_name}", 400) from None


def write(operation: OperationModel, result: Mapping[str, Any]) -> Answer:
    """The answer as the model lays it out; `Body` of GetObject is an iterable of bytes."""
    shape = operation.output_shape
    status = 206 if result.get("ContentRange") else operation.http.get("responseCode", 200)
    headers: dict[str, str] = {}
    if shape is None:
        return Answer(204 if operation.http["method"] == "DELETE" else status, headers, [])
    payload = shape.serialization.get("payload")
    body: Iterable[bytes] = []
    for name, member in shape.members.items():
        value = result.get(name)
        if value is None:
            continue
        location = member.serialization.get("location")
        wire_name = member.serialization.get("name", name)
        if location == "header":
            is_time = member.type_name == "timestamp"
            headers[wire_name] = format_datetime(value.astimezone(UTC), usegmt=True) if is_time else xml.text(value)
        elif location == "headers" and isinstance(member, MapShape):
            headers |= {wire_name + key: item for key, item in value.items()}
        elif name == payload:
            if member.type_name == "structure":
                root = ROOTS.get(operation.name, wire_name)
                body = [(xml.DECLARATION + xml.element(root, value, member, NAMESPACE)).encode()]
                headers["Content-Type"] = "application/xml"
            else:
                body = [value.encode()] if isinstance(value, str) else value
    if operation.name == "GetBucketLocation":
        content = escape(result.get("LocationConstraint") or "")
        body = [f"{xml.DECLARATION}<LocationConstraint{NAMESPACE}>{content}</LocationConstraint>".encode()]
        headers["Content-Type"] = "application/xml"
    elif payload is None and operation.name in ROOTS:
        body = [(xml.DECLARATION + xml.element(ROOTS[operation.name], result, shape, NAMESPACE)).encode()]
        headers["Content-Type"] = "application/xml"
    if operation.http["method"] == "DELETE" and operation.http.get("responseCode") is None:
        status = 204
    return Answer(status, headers, body)


# botocore's S3 model states no status for these; the others come with the S3Error.
STATUSES = {"AccessDenied": 403, "AccessDeniedException": 403, "ValidationException": 400}


def refuse(error: OutcropError, resource: str, request_id: str) -> Answer:
    """An error as S3 writes it."""
    code = {"AccessDeniedException": "AccessDenied", "ValidationException": "InvalidRequest"}.get(
        error.code, error.code
    )
    if error.code == "InternalServerException":
        code = "InternalError"
    status = getattr(error, "status", STATUSES.get(error.code, 500))
    more = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in error.members.items())
    document = (
        f"{xml.DECLARATION}<Error><Code>{escape(code)}</Code><Message>{escape(error.message)}</Message>{more}"
        f"<Resource>{escape(resource)}</Resource><RequestId>{request_id}</RequestId></Error>"
    )
    return Answer(status, {"Content-Type": "application/xml"}, [document.encode()])


def model(operation: str) -> OperationModel:
    """An S3 operation's model."""
    return operation_model("s3", operation)
