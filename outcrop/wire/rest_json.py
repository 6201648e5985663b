"""restJson1, the protocol of Bedrock's four services: requests into dictionaries, dictionaries into responses."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote

import msgspec
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from outcrop.errors import Invalid
from outcrop.wire.models import operation_model
from outcrop.wire.shapes import Problems, Readers, refusal

Response = tuple[int, dict[str, str], bytes]


@cache
def readers_of(service: str) -> Readers:
    """The readers of a service, kept."""
    return Readers(service)


@dataclass(frozen=True)
class Plan:
    """How one operation's input is laid out over the request; made once."""

    labels: list[tuple[str, str, Callable[..., Any]]]
    queries: list[tuple[str, str, bool, Callable[..., Any]]]
    headers: list[tuple[str, str, bool, Callable[..., Any]]]
    body: list[tuple[str, str, Callable[..., Any]]]
    payload: tuple[str, str, Callable[..., Any]] | None
    required: frozenset[str]


@cache
def plan(service: str, operation: str) -> Plan:
    """The layout of an operation's input."""
    shape = operation_model(service, operation).input_shape
    made = Plan([], [], [], [], None, frozenset())
    if shape is None:
        return made
    readers = readers_of(service)
    payload_name = shape.serialization.get("payload")
    payload = None
    for name, member in shape.members.items():
        location = member.serialization.get("location")
        wire_name = member.serialization.get("name", name)
        if name == payload_name:
            payload = (name, member.type_name, readers.of(member))
        elif location == "uri":
            made.labels.append((name, wire_name, readers.of(member)))
        elif location == "querystring":
            made.queries.append((name, wire_name, isinstance(member, ListShape), readers.of(member)))
        elif location == "header":
            is_json = bool(member.serialization.get("jsonvalue"))
            made.headers.append((name, wire_name.lower(), is_json, readers.of(member)))
        else:
            made.body.append((name, wire_name, readers.of(member)))
    return Plan(made.labels, made.queries, made.headers, made.body, payload, frozenset(shape.required_members))


def read(
    service: str,
    operation: str,
    labels: Mapping[str, str],
    query: Mapping[str, list[str]],
    headers: Mapping[str, str],
    body: bytes,
) -> dict[str, Any]:
    """The operation's input. Raises Invalid with every problem found, in AWS's wording."""
    layout = plan(service, operation)
    problems: Problems = []
    params: dict[str, Any] = {}
    for name, wire_name, reader in layout.labels:
        if wire_name in labels:
            params[name] = reader(labels[wire_name], name, problems)
    for name, wire_name, is_list, reader in layout.queries:
        if wire_name in query:
            values = query[wire_name]
            params[name] = reader(values if is_list else values[0], name, problems)
    for name, wire_name, is_json, reader in layout.headers:
        if wire_name in headers:
            value = headers[wire_name]
            if is_json:
                value = base64.b64decode(value).decode()
            params[name] = reader(value, name, problems)
    if layout.payload is not None:
        name, kind, reader = layout.payload
        if kind in ("blob", "string"):
            params[name] = body if kind == "blob" else body.decode()
        elif body:
            params[name] = reader(_json(body), name, problems)
    elif layout.body:
        document = _json(body) if body else {}
        if not isinstance(document, dict):
            raise Invalid(f"the request body is {type(document).__name__}; it must be a JSON object")
        for name, wire_name, reader in layout.body:
            given = document.get(wire_name)
            if given is not None:
                params[name] = reader(given, name, problems)
    problems += [
        f"Value at '{name}' failed to satisfy constraint: Member must not be null"
        for name in sorted(layout.required - params.keys())
    ]
    if problems:
        raise Invalid(refusal(problems))
    return params


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the request body is not JSON: {error}") from None


@dataclass(frozen=True)
class OutputPlan:
    """How one operation's answer is laid out; made once."""

    status: int
    headers: list[tuple[str, str]]
    status_member: str | None
    body: list[tuple[str, str, Callable[[Any], Any]]]
    payload: str | None


@cache
def output_plan(service: str, operation: str) -> OutputPlan:
    """The layout of an operation's answer."""
    model = operation_model(service, operation)
    made = OutputPlan(model.http.get("responseCode", 200), [], None, [], None)
    shape = model.output_shape
    if shape is None:
        return made
    payload, status_member = shape.serialization.get("payload"), None
    for name, member in shape.members.items():
        wire_name, location = member.serialization.get("name", name), member.serialization.get("location")
        if location == "header":
            made.headers.append((name, wire_name))
        elif location == "statusCode":
            status_member = name
        elif name != payload or member.type_name != "blob":
            made.body.append((name, wire_name, _writer(member)))
    return OutputPlan(made.status, made.headers, status_member, made.body, payload)


def write(service: str, operation: str, result: Mapping[str, Any]) -> Response:
    """Status, headers and body of an answer that is not a stream."""
    layout = output_plan(service, operation)
    headers = {
        wire_name: _header_text(result[name]) for name, wire_name in layout.headers if result.get(name) is not None
    }
    headers.setdefault("Content-Type", "application/json")
    status = int(result[layout.status_member]) if layout.status_member else layout.status
    document = {
        wire_name: writer(result[name]) for name, wire_name, writer in layout.body if result.get(name) is not None
    }
    if layout.payload is None:
        return status, headers, msgspec.json.encode(document)
    if document:
        return status, headers, msgspec.json.encode(document[next(iter(document))])
    return status, headers, result.get(layout.payload) or b""


def header_members(operation: OperationModel, result: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a streamed answer."""
    members = operation.output_shape.members if operation.output_shape else {}
    return {
        member.serialization.get("name", name): _header_text(result[name])
        for name, member in members.items()
        if member.serialization.get("location") == "header" and result.get(name) is not None
    }


def _header_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return quote(str(value), safe=" !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def to_json(value: Any, shape: Shape) -> Any:
    """A value as its shape's JSON: times as text with milliseconds, blobs as base64, absent members left out."""
    return _writer(shape)(value)


# Keyed by identity: shapes of one name occur in several services, and botocore makes a new object for each reference.
_WRITERS: dict[tuple[int, str], Callable[[Any], Any]] = {}


def _writer(shape: Shape) -> Callable[[Any], Any]:
    key = (id(shape._shape_resolver), shape.name + repr(shape.serialization.get("timestampFormat", "")))
    if key not in _WRITERS:
        _WRITERS[key] = lambda value: _WRITERS[key](value)
        _WRITERS[key] = _compile_writer(shape)
    return _WRITERS[key]


def _compile_writer(shape: Shape) -> Callable[[Any], Any]:
    if isinstance(shape, StructureShape):
        if getattr(shape, "is_document_type", False):
            return lambda value: value
        members = [
            (name, member.serialization.get("name", name), _writer(member)) for name, member in shape.members.items()
        ]
        return lambda value: {
            wire_name: writer(value[name]) for name, wire_name, writer in members if value.get(name) is not None
        }
    if isinstance(shape, ListShape):
        item = _writer(shape.member)
        return lambda value: [item(entry) for entry in value]
    if isinstance(shape, MapShape):
        entry = _writer(shape.value)
        return lambda value: {key: entry(item) for key, item in value.items()}
    if shape.type_name == "timestamp":
        epoch = shape.serialization.get("timestampFormat") == "unixTimestamp"
        return (lambda value: value.timestamp()) if epoch else timestamp_text
    if shape.type_name == "blob":
        return lambda value: base64.b64encode(value).decode()
    return lambda value: value


def timestamp_text(moment: datetime) -> str:
    """A time as every SDK reads it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
