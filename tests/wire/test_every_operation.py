"""Every operation of Bedrock's four services, through boto3 over HTTP: what is called is what was meant, what arrives is
what was sent, what comes back is what was answered."""

import asyncio
import os
import random
import threading
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError
from granian.constants import Interfaces
from granian.server.embed import Server

from outcrop.server import _free_port
from outcrop.wire import Wire
from outcrop.wire.models import BEDROCK_SERVICES, operation_model, service_model
from tests.wire.random_values import Unmakeable, value_for

ROUNDS = int(os.environ.get("WIRE_ROUNDS", "20"))


class AnyKeys:
    def secret_of(self, access_key: str) -> str | None:
        return "SECRET" if access_key == "KEY" else None

    def accepts_bearer(self, token: str) -> bool:
        return False


class Mirror:
    """Remembers what it was called with and answers what it was told to."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] = {}
        self.called: tuple[str, str, dict[str, Any]] | None = None

    def function(self, service: str, operation: str) -> Any:
        def call(request: dict[str, Any], context: Any) -> dict[str, Any]:
            self.called = (service, operation, request)
            return self.answer

        return call


@pytest.fixture(scope="module")
def mirror() -> Mirror:
    return Mirror()


@pytest.fixture(scope="module")
def endpoint(mirror: Mirror, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    functions = {
        (service, name): mirror.function(service, name)
        for service in BEDROCK_SERVICES
        for name in service_model(service).operation_names
    }
    wire = Wire(functions, AnyKeys(), Path(tmp_path_factory.mktemp("receiving")))
    port = _free_port("127.0.0.1")
    server = Server(wire, address="127.0.0.1", port=port, interface=Interfaces.ASGI, log_enabled=False)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(),))
    thread.start()
    yield f"http://127.0.0.1:{port}"
    loop.call_soon_threadsafe(server.stop)
    thread.join(10)
    loop.close()


def cases() -> list[tuple[str, str]]:
    return [(service, name) for service in BEDROCK_SERVICES for name in service_model(service).operation_names]


# HTTP/2 in both directions at once: boto3 does not offer it.
NOT_IN_BOTO3 = {"InvokeModelWithBidirectionalStream"}


@pytest.mark.parametrize(("service", "name"), cases())
def test_what_is_sent_arrives_and_what_is_answered_comes_back(
    service: str, name: str, endpoint: str, mirror: Mirror
) -> None:
    if name in NOT_IN_BOTO3:
        pytest.skip("boto3 has no such method")
    rng = random.Random(zlib.crc32(f"{service}.{name}".encode()))
    client = boto3.client(
        service, endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="KEY", aws_secret_access_key="SECRET",
        config=Config(retries={"max_attempts": 0}),
    )  # fmt: skip
    operation = operation_model(service, name)
    done = 0
    for _ in range(ROUNDS * 4):
        if done == ROUNDS:
            break
        try:
            given = value_for(operation.input_shape, rng) if operation.input_shape else {}
        except Unmakeable:
            continue
        if name.startswith(("TagResource", "UntagResource", "ListTags")) and service == "bedrock-agent-runtime":
            given["resourceArn"] = "arn:aws:bedrock:us-east-1:123456789012:session/12345678-1234-1234-1234-123456789012"
        elif name.startswith(("TagResource", "UntagResource", "ListTags")) and service == "bedrock-agent":
            given["resourceArn"] = "arn:aws:bedrock:us-east-1:123456789012:agent/ABCDEFGHIJ"
        if not given.get("tagKeys", True):
            continue  # a required list in the query cannot be sent empty
        mirror.called, mirror.answer = None, answer_for(operation, rng)
        expected = dict(mirror.answer)
        if operation.has_event_stream_output:
            expected = stream_of(mirror, operation, rng)
        try:
            received = getattr(client, xform_name(name))(**given)
        except ClientError as error:
            raise AssertionError(f"{given} was refused: {error}") from error
        assert mirror.called is not None
        assert mirror.called[:2] == (service, name)
        assert cleaned(mirror.called[2]) == cleaned(given)
        received.pop("ResponseMetadata")
        if operation.has_event_stream_output:
            member = next(key for key, value in expected.items() if isinstance(value, list))
            received[member] = list(received[member])
        elif "body" in received:
            received["body"] = received["body"].read()
        assert cleaned(received) == cleaned(expected)
        done += 1
    assert done == ROUNDS, f"only {done} random inputs could be made"


def answer_for(operation: Any, rng: random.Random) -> dict[str, Any]:
    if operation.output_shape is None or operation.has_event_stream_output:
        return {}
    return dict(value_for(operation.output_shape, rng, strict=False))


def stream_of(mirror: Mirror, operation: Any, rng: random.Random) -> dict[str, Any]:
    union = operation.get_event_stream_output()
    member = next(key for key, shape in operation.output_shape.members.items() if shape.name == union.name)
    kinds = [name for name, shape in union.members.items() if not shape.metadata.get("exception")]
    events = []
    while len(events) < 4:
        kind = rng.choice(kinds)
        events.append((kind, value_for(union.members[kind], rng, strict=False)))
    headers = {
        name: value_for(shape, rng, strict=False)
        for name, shape in operation.output_shape.members.items()
        if shape.serialization.get("location") == "header"
    }
    mirror.answer = {**headers, member: iter(events)}
    return {**headers, member: [{kind: members} for kind, members in events]}


def cleaned(value: Any) -> Any:
    """Without what the wire may add or drop: nothing where nothing was, tokens that boto3 fills in, body objects."""
    if isinstance(value, dict):
        return {
            key: cleaned(item)
            for key, item in value.items()
            if item is not None
            and key not in ("clientRequestToken", "clientToken")
            and not (key == "body" and item == b"")
        }
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(microsecond=value.microsecond // 1000 * 1000)
    return value
