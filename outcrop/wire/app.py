"""The ASGI application: one port, every service.

The way of a request, top to bottom: `__call__` -> `_answer` (whose is it, is it signed, read its body) -> `_rest_json`,
`_s3` or `_query` (which operation, its input, the function, the answer). Functions are plain and run in threads.
"""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
from botocore.model import OperationModel

from outcrop.clock import now
from outcrop.errors import Denied, Invalid, NotFound, OutcropError, S3Error, Unsupported
from outcrop.wire import eventstream, openai, query, rest_json, s3, sigv2, sigv4
from outcrop.wire.body import Body, Receiver
from outcrop.wire.context import Context
from outcrop.wire.incoming import Incoming, Outgoing
from outcrop.wire.models import QUERY_SERVICES, operation_model, service_model
from outcrop.wire.receiving import Disconnected, Receive, disconnect, json_object, receive_large, receive_small, watched
from outcrop.wire.refusing import error_document, json_headers, refused
from outcrop.wire.routing import Match, Router

log = logging.getLogger("outcrop.wire")

Send = Callable[[dict[str, Any]], Awaitable[None]]
Function = Callable[[dict[str, Any], Context], Mapping[str, Any] | None]

THREADS = 64
# Calls of a model wait for it, in threads of their own so that everything else goes on: as many as may be let in or wait,
# of several models; beyond that they are refused, and soon.
MODEL_THREADS = 512
BEARER_SERVICES = ("bedrock", "bedrock-runtime")


class Wire:
    """Serves functions as AWS would.

    `functions` maps (service, operation) to what does the work; an operation without one answers a declared error that
    says so. `extensions` maps (method, path template) to functions of our own beside AWS's, `second_door` those in
    OpenAI's dialect. `receiving` is a folder on the disk on which the storage lies: large bodies arrive there. `is_open`
    accepts any credentials.
    """

    def __init__(
        self,
        functions: Mapping[tuple[str, str], Function],
        keys: sigv4.Keys,
        receiving: Path,
        *,
        is_open: bool = False,
        extensions: Mapping[tuple[str, str], Function] | None = None,
        second_door: openai.Routes | None = None,
        default_region: str = "us-east-1",
    ) -> None:
        self._functions, self._keys, self._receiving = functions, keys, receiving
        self._is_open, self._default_region = is_open, default_region
        self._extensions = {
            (method, tuple(template.strip("/").split("/"))): function
            for (method, template), function in (extensions or {}).items()
        }
        self._second_door = second_door or {}
        self._router = Router()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="call")
        # Streams that have begun go on even when every other thread waits for a model.
        self._stream_threads = ThreadPoolExecutor(MODEL_THREADS, thread_name_prefix="stream")
        self._model_threads = ThreadPoolExecutor(MODEL_THREADS, thread_name_prefix="model")

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        incoming = _incoming(scope)
        outgoing = await self._answer(incoming, receive)
        await self._send(incoming, outgoing, receive, send)

    # --- whose request it is ---------------------------------------------------------------------------------------

    async def _answer(self, incoming: Incoming, receive: Receive) -> Outgoing:
        service = "bedrock"
        try:
            scope = sigv4.scope_of(incoming.signed)
            service = self._service(incoming, scope)
            if service == "s3":
                return await self._s3(incoming, scope, receive)
            if service == "openai":
                return await self._openai(incoming, scope, receive)
            data = await receive_small(receive)
            access_key, region = self._identify(incoming, scope, data, service)
            if service in QUERY_SERVICES:
                return await self._query(incoming, data, access_key, region)
            return await self._rest_json(incoming, data, access_key, region, receive)
        except OutcropError as error:
            return refused(service, None, error, incoming)
        except Disconnected:
            return Outgoing(400, {}, [])
        except Exception as error:  # an edge: whatever went wrong, the client gets a declared answer
            log.exception("request %s failed", incoming.request_id)
            return refused(service, None, OutcropError(f"{type(error).__name__}, see the log"), incoming)

    def _service(self, incoming: Incoming, scope: sigv4.Scope | None) -> str:
        """openai, bedrock (all four), s3, sts or iam: by the path, the signature's scope, the path again."""
        is_bearer = incoming.headers.get("authorization", "").startswith("Bearer ")
        is_bedrocks = is_bearer or scope is None or scope.service == "bedrock"
        if is_bedrocks and openai.is_for(incoming.raw_path):
            # Bedrock has operations of its own below /v1.
            is_operation = self._router.match(incoming.method, incoming.raw_path) is not None
            return "bedrock" if is_operation else "openai"
        if scope is not None:
            if scope.service not in ("bedrock", "s3", *QUERY_SERVICES):
                raise Denied(
                    f"the request is signed for {scope.service!r}; Outcrop answers bedrock, s3, sts and iam. "
                    "Set AWS_ENDPOINT_URL_<SERVICE> to send other services elsewhere"
                )
            return scope.service
        if sigv2.access_key_of(incoming.signed) is not None:
            return "s3"
        segments = incoming.raw_path.strip("/").split("/")
        if is_bearer or segments[0] in self._router.first_segments:
            return "bedrock"
        if (incoming.method, tuple(segments)) in self._extensions:
            return "bedrock"
        if incoming.method == "POST" and incoming.raw_path == "/":
            return "sts"
        return "s3"

    def _identify(
        self, incoming: Incoming, scope: sigv4.Scope | None, data: bytes | None, service: str
    ) -> tuple[str | None, str]:
        """Access key and region of the caller. Raises Denied when the request is not properly signed."""
        authorization = incoming.headers.get("authorization", "")
        if authorization.startswith("Bearer "):
            if service not in ("bedrock", "openai"):
                raise Denied(f"API keys open bedrock and bedrock-runtime, not {service}; sign the request instead")
            if not self._is_open and not self._keys.accepts_bearer(authorization.removeprefix("Bearer ").strip()):
                raise Denied("the API key is not known; `outcrop env` prints the one that is")
            return None, self._default_region
        version_2 = sigv2.access_key_of(incoming.signed) if service == "s3" else None
        if version_2 is not None:
            if not self._is_open:
                sigv2.verify(incoming.signed, self._secret(version_2), now())
            return version_2, self._default_region
        if scope is None:
            if not self._is_open:
                raise Denied(
                    "Missing Authentication Token: the request is not signed; `outcrop env` prints credentials"
                )
            return None, self._default_region
        if self._is_open:
            return scope.access_key, scope.region
        secret = self._secret(scope.access_key)
        declared = incoming.headers.get("x-amz-content-sha256")
        if service == "s3":
            payload_hash = sigv4.UNSIGNED if scope.is_presigned else declared or sigv4.UNSIGNED
        else:
            found = hashlib.sha256(data or b"").hexdigest()
            payload_hash = declared or found
            if payload_hash not in (found, sigv4.UNSIGNED):
                raise Denied("The value of x-amz-content-sha256 is not the hash of the request body")
        sigv4.verify(incoming.signed, scope, secret, payload_hash, now())
        return scope.access_key, scope.region

    def _secret(self, access_key: str) -> str:
        secret = self._keys.secret_of(access_key)
        if secret is None:
            raise Denied(f"The access key {access_key!r} is not known; `outcrop env` prints the one that is")
        return secret

    # --- Bedrock ---------------------------------------------------------------------------------------------------

    async def _rest_json(
        self, incoming: Incoming, data: bytes, access_key: str | None, region: str, receive: Receive
    ) -> Outgoing:
        extension = self._extension(incoming)
        if extension is not None:
            return await self._extended(incoming, data, *extension, access_key, region)
        match = self._router.match(incoming.method, incoming.raw_path)
        if match is None:
            document = b'{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}'
            headers = {"content-type": "application/json", "x-amzn-errortype": "UnknownOperationException"}
            return Outgoing(404, headers, [document])
        operation = operation_model(match.service, match.operation)
        try:
            if access_key is None and not self._is_open and match.service not in BEARER_SERVICES:
                raise Denied(
                    f"API keys open bedrock and bedrock-runtime, not {match.service}; sign the request instead"
                )
            params = rest_json.read(
                match.service, match.operation, match.labels, _query_lists(incoming), incoming.headers, data
            )
            function = self._functions.get((match.service, match.operation))
            if function is None:
                raise Unsupported(f"{match.operation} is not implemented by Outcrop (docs/operations.md lists what is)")
            context = _context(incoming, match, access_key, region)
            if operation.has_event_stream_output:
                opened: Outgoing = await self._in_model_thread(self._open_stream, operation, function, params, context)
                return opened
            if match.service == "bedrock-runtime":
                async with watched(receive, context):
                    result = await self._in_model_thread(function, params, context) or {}
            else:
                result = await self._in_thread(function, params, context) or {}
            status, headers, body = rest_json.write(match.service, match.operation, result)
            return Outgoing(status, headers | result.get("extra_headers", {}), [body])
        except OutcropError as error:
            return refused(match.service, operation, error, incoming)

    @staticmethod
    def _open_stream(
        operation: OperationModel, function: Function, params: dict[str, Any], context: Context
    ) -> Outgoing:
        """Begin a stream: what fails before the first event is an ordinary error, after it an event."""
        result = function(params, context) or {}
        name = operation.get_event_stream_output().name
        member = next(key for key, shape in operation.output_shape.members.items() if shape.name == name)
        union = operation.output_shape.members[member]
        events = iter(result[member])
        first = next(events)

        def frames() -> Iterator[bytes]:
            try:
                for kind, members in chain([first], events):
                    yield eventstream.event(union, kind, members)
            except OutcropError as error:
                yield eventstream.failure(union, error)
            except Exception as error:  # an edge: the stream must end with a declared event
                log.exception("stream %s failed", context.request_id)
                yield eventstream.failure(union, OutcropError(f"{type(error).__name__}, see the log"))
            finally:
                if hasattr(events, "close"):
                    events.close()

        headers = rest_json.header_members(operation, result) | result.get("extra_headers", {})
        headers["content-type"] = eventstream.CONTENT_TYPE
        return Outgoing(operation.http.get("responseCode", 200), headers, frames())

    def _extension(self, incoming: Incoming) -> tuple[Function, dict[str, str]] | None:
        parts = tuple(incoming.raw_path.strip("/").split("/"))
        for (method, template), function in self._extensions.items():
            if method == incoming.method and len(template) == len(parts):
                labels = {
                    segment.strip("{}"): unquote(part)
                    for segment, part in zip(template, parts, strict=True)
                    if segment.startswith("{")
                }
                if all(
                    segment.startswith("{") or segment == part for segment, part in zip(template, parts, strict=True)
                ):
                    return function, labels
        return None

    async def _extended(
        self, incoming: Incoming, data: bytes, function: Function, labels: dict[str, str], access_key: str | None,
        region: str,
    ) -> Outgoing:  # fmt: skip
        context = _context(incoming, Match("outcrop", function.__name__, labels), access_key, region)
        try:
            params = json_object(data) | {name: values[0] for name, values in _query_lists(incoming).items()} | labels
            result = await self._in_thread(function, params, context)
        except OutcropError as error:
            status = 404 if isinstance(error, NotFound) else 400
            return Outgoing(status, *error_document(error))
        return Outgoing(200, {"content-type": "application/json"}, [msgspec.json.encode(result)])

    # --- OpenAI ----------------------------------------------------------------------------------------------------

    async def _openai(self, incoming: Incoming, scope: sigv4.Scope | None, receive: Receive) -> Outgoing:
        form: dict[str, Any] = {}
        try:
            found = openai.match(self._second_door, incoming.method, incoming.raw_path)
            if incoming.headers.get("content-type", "").startswith("multipart/"):
                access_key, region = self._identify(incoming, scope, None, "openai")
                params = form = await openai.read_form(incoming.headers, receive, self._receiving)
            else:
                data = await receive_small(receive)
                access_key, region = self._identify(incoming, scope, data, "openai")
                params = json_object(data)
            if found is None:
                raise NotFound(f"there is no {incoming.method} {incoming.raw_path} here")
            handler, labels = found
            params |= {name: values[0] for name, values in _query_lists(incoming).items()} | labels
            context = _context(incoming, Match("openai", handler.__name__, labels), access_key, region)
            async with watched(receive, context):
                written: Outgoing = await self._in_model_thread(_written, handler, params, context)
            return written
        except OutcropError as error:
            status, document = openai.refusal(error)
            return Outgoing(status, json_headers(error), [msgspec.json.encode(document)])
        finally:
            if "file" in form:
                form["file"][1].unlink(missing_ok=True)

    # --- S3 --------------------------------------------------------------------------------------------------------

    async def _s3(self, incoming: Incoming, scope: sigv4.Scope | None, receive: Receive) -> Outgoing:
        resource = incoming.raw_path
        body: Body | None = None
        try:
            access_key, region = self._identify(incoming, scope, None, "s3")
            pairs = dict(sigv4.query_pairs(incoming.raw_query))
            bucket, key = s3.split_path(incoming.raw_path, incoming.headers.get("host", ""))
            name = s3.operation_of(incoming.method, bucket, key, pairs, incoming.headers)
            receiver = Receiver(self._receiving, incoming.headers, self._chunk_signer(scope, incoming))
            body = await receive_large(receive, receiver)
            declared = incoming.headers.get("x-amz-content-sha256", body.sha256)
            if declared != body.sha256 and declared != sigv4.UNSIGNED and not declared.startswith("STREAMING-"):
                raise S3Error("XAmzContentSHA256Mismatch", "x-amz-content-sha256 is not the hash of the body", 400)
            function = self._functions.get(("s3", name))
            if function is None:
                raise S3Error("NotImplemented", f"{name} is not implemented by Outcrop's S3", 400)
            operation = s3.model(name)
            params = s3.read(operation, bucket, key, pairs, incoming.headers, body)
            context = _context(incoming, Match("s3", name, {}), access_key, region)
            answer = s3.write(operation, await self._in_thread(function, params, context) or {})
        except OutcropError as error:
            answer = s3.refuse(error, resource, incoming.request_id)
        finally:
            if body is not None:
                body.discard()
        return Outgoing(
            answer.status,
            answer.headers,
            [] if incoming.method == "HEAD" or answer.status in (204, 304) else answer.body,
        )

    def _chunk_signer(self, scope: sigv4.Scope | None, incoming: Incoming) -> Callable[[str, str], str] | None:
        declared = incoming.headers.get("x-amz-content-sha256", "")
        if scope is None or self._is_open or not declared.startswith("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"):
            return None
        secret = self._keys.secret_of(scope.access_key) or ""
        return lambda previous, data_hash: sigv4.chunk_signature(scope, secret, previous or scope.signature, data_hash)

    # --- STS and IAM -----------------------------------------------------------------------------------------------

    async def _query(self, incoming: Incoming, data: bytes, access_key: str | None, region: str) -> Outgoing:
        headers = {"content-type": query.CONTENT_TYPE}
        try:
            form = query.form_of(data) or query.form_of(incoming.raw_query.encode())
            service, name = query.service_of(form), form.get("Action", "")
            if name not in service_model(service).operation_names:
                raise Invalid(f"{name!r} is not an operation of {service}")
            function = self._functions.get((service, name))
            if function is None:
                raise Unsupported(f"{name} is not implemented by Outcrop (docs/operations.md lists what is)")
            operation = operation_model(service, name)
            params = query.read(service, operation, form)
            context = _context(incoming, Match(service, name, {}), access_key, region)
            result = await self._in_thread(function, params, context) or {}
            return Outgoing(200, headers, [query.write(operation, result, incoming.request_id)])
        except OutcropError as error:
            status, document = query.refuse(error, incoming.request_id)
            return Outgoing(status, headers, [document])

    # --- answering -------------------------------------------------------------------------------------------------

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _in_model_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._model_threads, function, *arguments)

    async def _send(self, incoming: Incoming, outgoing: Outgoing, receive: Receive, send: Send) -> None:
        headers = [
            (name.lower().encode(), value.encode("latin-1", "replace")) for name, value in outgoing.headers.items()
        ]
        headers.append((b"x-amzn-requestid", incoming.request_id.encode()))
        headers.append((b"x-amz-request-id", incoming.request_id.encode()))
        start = {"type": "http.response.start", "status": outgoing.status, "headers": headers}
        if isinstance(outgoing.body, list):
            whole = b"".join(outgoing.body)
            if b"content-length" not in dict(headers):
                headers.append((b"content-length", str(len(whole)).encode()))
            await send(start)
            await send({"type": "http.response.body", "body": whole})
            return
        await send(start)
        gone = asyncio.ensure_future(disconnect(receive))
        pieces = iter(outgoing.body)
        try:
            async for piece in self._pieces(pieces):
                if gone.done():
                    break
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            close = getattr(pieces, "close", None)
            if close is not None:
                await self._in_stream(close)

    async def _pieces(self, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        while (piece := await self._in_stream(next, pieces, None)) is not None:
            yield piece

    async def _in_stream(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._stream_threads, function, *arguments)


def _written(handler: openai.Handler, params: dict[str, Any], context: Context) -> Outgoing:
    """What an operation of the second door gives, as a response: events begin when the first one is there."""
    result = handler(params, context)
    if isinstance(result, bytes):
        return Outgoing(200, {"content-type": "application/octet-stream"}, [result])
    if isinstance(result, Iterator):
        first = next(result)
        return Outgoing(200, {"content-type": "text/event-stream"}, openai.events(chain([first], result)))
    return Outgoing(200, {"content-type": "application/json"}, [msgspec.json.encode(result)])


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _incoming(scope: dict[str, Any]) -> Incoming:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    raw_path = scope["raw_path"].decode("latin-1").partition("?")[0]
    origin = f"{scope.get('scheme', 'http')}://{headers.get('host', 'localhost')}"
    return Incoming(
        scope["method"], raw_path, scope["query_string"].decode("latin-1"), headers, origin, str(uuid.uuid4())
    )


def _query_lists(incoming: Incoming) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    if not incoming.raw_query:
        return lists
    for name, value in sigv4.query_pairs(incoming.raw_query):
        lists.setdefault(name, []).append(value)
    return lists


def _context(incoming: Incoming, match: Match, access_key: str | None, region: str) -> Context:
    return Context(
        match.service, match.operation, incoming.request_id, region, access_key, incoming.headers, incoming.origin
    )
