"""The runtime: InvokeModel, Converse, their streams, and counting."""

from collections.abc import Iterator
from typing import Any

from outcrop import invocation
from outcrop.api.call import Call
from outcrop.errors import Invalid, Unsupported

Request = dict[str, Any]


def converse(request: Request, call: Call) -> Request:
    """An answer to a conversation."""
    _refuse_tiers(request)
    return invocation.converse(_invocation(call), request)


def converse_stream(request: Request, call: Call) -> Request:
    """The same as events."""
    _refuse_tiers(request)
    return {"stream": invocation.converse_stream(_invocation(call), request)}


def invoke_model(request: Request, call: Call) -> Request:
    """An answer to a native body."""
    _check_headers(request)
    body, result = invocation.invoke(_invocation(call), request["modelId"], request.get("body", b""))
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
    _check_headers(request)
    chunks = invocation.invoke_stream(_invocation(call), request["modelId"], request.get("body", b""))

    def events() -> Iterator[tuple[str, Request]]:
        try:
            for chunk in chunks:
                yield "chunk", {"bytes": chunk}
        finally:
            chunks.close()  # type: ignore[attr-defined]

    return {"body": events(), "contentType": "application/json"}


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
