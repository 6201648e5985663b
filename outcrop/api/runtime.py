"""The runtime: InvokeModel, Converse, their streams, and counting."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from outcrop import invocation
from outcrop.api.call import Call
from outcrop.api.logged import Answered, logged
from outcrop.errors import Invalid, Unsupported

Request = dict[str, Any]


def converse(request: Request, call: Call) -> Request:
    """An answer to a conversation."""
    with _logged(request, call, "Converse") as answered:
        _refuse_tiers(request)
        whole = invocation.converse(_invocation(call), request)
        _tell(answered, whole)
    return whole


def converse_stream(request: Request, call: Call) -> Request:
    """The same as events."""

    def events() -> Iterator[tuple[str, Request]]:
        with _logged(request, call, "ConverseStream") as answered:
            _refuse_tiers(request)
            yield from invocation.converse_stream(_invocation(call), request, lambda whole: _tell(answered, whole))

    return {"stream": events()}


def _logged(request: Request, call: Call, operation: str) -> AbstractContextManager[Answered]:
    body = {name: value for name, value in request.items() if name not in ("modelId", "requestMetadata")}
    return logged(call, operation, request["modelId"], body, request.get("requestMetadata"))


def _tell(answered: Answered, whole: Request) -> None:
    answered(whole, whole["usage"]["inputTokens"], whole["usage"]["outputTokens"])


def invoke_model(request: Request, call: Call) -> Request:
    """An answer to a native body."""
    with _logged_native(request, call, "InvokeModel") as answered:
        _check_headers(request)
        body, result = invocation.invoke(_invocation(call), request["modelId"], request.get("body", b""))
        answered(msgspec.Raw(body), result.input_tokens, result.output_tokens)
    counts = {
        "x-amzn-bedrock-input-token-count": str(result.input_tokens),
        "x-amzn-bedrock-output-token-count": str(result.output_tokens),
        "x-amzn-bedrock-cache-read-input-token-count": "0",
        "x-amzn-bedrock-cache-write-input-token-count": "0",
        "x-amzn-bedrock-invocation-latency": str(result.latency_ms),
    }
    return {"body": body, "contentType": "application/json", "extra_headers": counts}


def invoke_model_with_response_stream(request: Request, call: Call) -> Request:
    """The same as chunks of the family's own form."""

    def events() -> Iterator[tuple[str, Request]]:
        with _logged_native(request, call, "InvokeModelWithResponseStream") as answered:
            _check_headers(request)
            chunks = invocation.invoke_stream(
                _invocation(call), request["modelId"], request.get("body", b""),
                lambda whole, result: answered(whole, result.input_tokens, result.output_tokens),
            )  # fmt: skip
            try:
                for chunk in chunks:
                    yield "chunk", {"bytes": chunk}
            finally:
                chunks.close()  # type: ignore[attr-defined]

    return {"body": events(), "contentType": "application/json"}


def _logged_native(request: Request, call: Call, operation: str) -> AbstractContextManager[Answered]:
    try:
        body = msgspec.json.decode(request.get("body", b""))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None  # it will be refused
    kind = "embedding" if invocation.makes_vectors(_invocation(call), request["modelId"]) else "text"
    return logged(call, operation, request["modelId"], body, request.get("requestMetadata"), kind)


def count_tokens(request: Request, call: Call) -> Request:
    """How many tokens a request's prompt has; nothing is generated."""
    given = request["input"]
    if "converse" in given:
        asked = given["converse"]
        prompt: Any = invocation.conversation_of(asked.get("messages") or [], asked.get("system"))
    else:
        prompt = invocation.read_body(given["invokeModel"]["body"]).ask.prompt
    return {"inputTokens": invocation.count(_invocation(call), request["modelId"], prompt)}


def _invocation(call: Call) -> invocation.Invocation:
    return invocation.Invocation(call.service.serving, call.service.registry, call.context.gone)


def _refuse_tiers(request: Request) -> None:
    if (request.get("performanceConfig") or {}).get("latency", "standard") != "standard":
        raise Unsupported("performanceConfig.latency optimized is not implemented by Outcrop; leave it out")
    tier = (request.get("serviceTier") or {}).get("type", "default")
    if tier != "default":
        raise Unsupported(f"serviceTier {tier} is not implemented by Outcrop; leave it out")


def _check_headers(request: Request) -> None:
    for name in ("contentType", "accept"):
        value = request.get(name, "application/json").partition(";")[0].strip()
        if value not in (
            "application/json",
            "application/octet-stream",
            "*/*",
            "",
        ):  # the JavaScript SDK says octet-stream
            raise Invalid(f"{name} is {value!r}; it must be application/json")
    if request.get("guardrailIdentifier"):
        raise Unsupported("guardrails are not implemented by Outcrop yet; leave guardrailIdentifier out")
    if request.get("performanceConfigLatency", "standard") != "standard":
        raise Unsupported("performanceConfigLatency optimized is not implemented by Outcrop; leave it out")
