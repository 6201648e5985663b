"""Whatever is sent, the answer is declared: never a 5xx, never a hang."""

import asyncio
import json
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from outcrop.api import extensions, functions
from outcrop.keys import LocalKeys
from outcrop.server import make_service
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.wire import Wire
from outcrop.wire.models import BEDROCK_SERVICES, service_model
from tests.wire.random_values import Unmakeable, value_for

COUNT = int(os.environ.get("MALFORMED_REQUESTS", "10000"))


class Client:
    """Speaks ASGI to the whole service, without a network."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._loop = asyncio.new_event_loop()

    def __call__(
        self, method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes
    ) -> tuple[int, bytes]:
        scope = {
            "type": "http", "method": method, "raw_path": path.encode("utf-8", "surrogateescape"), "scheme": "http",
            "query_string": query.encode("utf-8", "surrogateescape"),
            "headers": [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in headers],
        }  # fmt: skip
        messages = iter([{"type": "http.request", "body": body}])
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            message = next(messages, None)
            if message is None:
                await asyncio.sleep(30)
            return message or {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        self._loop.run_until_complete(asyncio.wait_for(self._wire(scope, receive, send), 30))
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])

    def close(self) -> None:
        self._loop.close()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    storage = Storage(home)
    service = make_service(Settings(home=home, engine="echo"), storage)
    storage.objects.make_bucket("bucket", {"created": "2026-01-01T00:00:00+00:00", "region": "us-east-1"})
    storage.objects.put_bytes("bucket", "key", b"data", "text/plain")
    wire = Wire(functions(service), LocalKeys.of(home), storage.receiving, is_open=True, extensions=extensions(service))
    client = Client(wire)
    yield client
    client.close()
    service.serving.close()


OPERATIONS = [
    (model.operation_model(name)) for model in map(service_model, BEDROCK_SERVICES) for name in model.operation_names
]
LABELS = st.one_of(
    st.sampled_from(
        ["outcrop.pebble-v1:0", "a" * 300, "%00", "%ff%fe", "..", "arn:aws:bedrock:us-east-1:1:x/y", "%2e%2e%2f"]
    ),
    st.text(max_size=30).map(lambda text: text.replace("/", "").replace("?", "").replace("#", "")),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["content-type", "accept", "x-amz-date", "authorization", "range", "if-match", "content-md5",
                         "x-amz-content-sha256", "x-amz-copy-source", "x-amzn-bedrock-trace", "x-amz-checksum-crc32",
                         "x-amzn-bedrock-request-metadata", "content-encoding", "x-amz-trailer", "host", "if-modified-since"]),
        st.text(max_size=40) | st.sampled_from(["Bearer x", "AWS4-HMAC-SHA256 Credential=a/b/c/s3/aws4_request, SignedHeaders=host, Signature=0",
                                               "AWS4-HMAC-SHA256 Credential=a/20260101/r/bedrock/aws4_request, SignedHeaders=host, Signature=0",
                                               "AWS4-HMAC-SHA256 Credential=a/20260101/r/iam/aws4_request, SignedHeaders=host, Signature=0",
                                               "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "bytes=5-1", "bytes=-", "aws-chunked"]),
    ),
    max_size=4,
)  # fmt: skip


@st.composite
def requests(draw: Any) -> tuple[str, str, str, list[tuple[str, str]], bytes]:
    """A request that is wrong somewhere: in its path, its query, its headers, or a member of an otherwise right body."""
    kind = draw(st.sampled_from(["operation", "operation", "operation", "s3", "form", "noise"]))
    headers = draw(HEADERS)
    if kind == "operation":
        operation = draw(st.sampled_from(OPERATIONS))
        uri = operation.http["requestUri"].partition("?")[0]
        path = "/".join(draw(LABELS) if part.startswith("{") else part for part in uri.split("/"))
        return operation.http["method"], path, draw(queries()), headers, draw(bodies(operation))
    if kind == "s3":
        method = draw(st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD"]))
        path = "/bucket/" + draw(LABELS | st.just("key"))
        xml = st.sampled_from(
            [b"<a", b"<Delete><Object></Object></Delete>", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", b"\xff"]
        )
        return method, path, draw(queries()), headers, draw(xml | st.binary(max_size=200))
    if kind == "form":
        names = st.sampled_from(
            ["Action=CreateRole", "Action=GetRole&RoleName=%00", "Action=", "Version=2010-05-08&Action=CreatePolicy"]
        )
        return "POST", "/", "", headers, draw(names).encode() + draw(st.binary(max_size=50))
    method = draw(st.sampled_from(["GET", "POST", "PATCH", "OPTIONS", "BREW"]))
    return (
        method,
        "/" + draw(st.text(max_size=40)).replace("?", ""),
        draw(queries()),
        headers,
        draw(st.binary(max_size=100)),
    )


def queries() -> st.SearchStrategy[str]:
    names = st.sampled_from(["maxResults", "nextToken", "statusEquals", "creationTimeAfter", "sortBy", "uploads", "uploadId",
                             "partNumber", "max-keys", "list-type", "delimiter", "continuation-token", "tagKeys", "X-Amz-Signature",
                             "X-Amz-Expires", "versions", "part-number-marker", "start-after"])  # fmt: skip
    pair = st.tuples(
        names, st.text(max_size=12) | st.sampled_from(["-1", "0", "1", "99999999999999999999", "%zz", "&", "2"])
    )
    return st.lists(pair, max_size=3).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))


@st.composite
def bodies(draw: Any, operation: Any) -> bytes:
    choice = draw(st.sampled_from(["broken", "json", "mutated", "mutated", "empty"]))
    if choice == "empty":
        return b""
    if choice == "broken":
        return draw(
            st.sampled_from([b"{", b"[1,", b"nul", b'{"a":' * 3000, b"\xff\xfe", b"[" * 100_000])
            | st.binary(max_size=60)
        )
    if choice == "json":
        return json.dumps(draw(JSON)).encode("utf-8", "surrogatepass")
    try:
        value = (
            value_for(operation.input_shape, random.Random(draw(st.integers(0, 10**6))))
            if operation.input_shape
            else {}
        )
    except Unmakeable:
        value = {}
    document = json.loads(json.dumps(value, default=lambda other: "AAAA" if isinstance(other, bytes) else str(other)))
    if document:
        document[draw(st.sampled_from(sorted(document)))] = draw(JSON)
    return json.dumps(document).encode("utf-8", "surrogatepass")


answers: dict[int, int] = {}


@settings(
    max_examples=COUNT, deadline=None, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck), print_blob=False,
)  # fmt: skip
@given(request=requests())
def test_malformed_requests_get_declared_errors(client: Client, request: tuple[Any, ...]) -> None:
    status, body = client(*request)
    answers[status] = answers.get(status, 0) + 1
    assert status < 500, body
    if status >= 400 and request[0] != "HEAD":
        assert b"essage" in body or b"UnknownOperationException" in body
