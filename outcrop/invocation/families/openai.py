"""OpenAI's bodies: chat, and completions of a text."""

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from outcrop.errors import Invalid
from outcrop.invocation.answer import Answer, Ask, Delta, Likelihood
from outcrop.invocation.converse import choice_of, conversation_of
from outcrop.invocation.families.body import METRICS, Body, Fields, Json, blocks_of, metrics, string_in, tool_config

# Options that change nothing here: who asks, what is kept elsewhere, and how much is paid.
HARMLESS = ("user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key")


def _openai_ask(fields: Fields, prompt: Any, **more: Any) -> Ask:
    most = fields.whole("max_tokens", None, 1)
    ask = Ask(
        prompt=prompt, max_tokens=most if most is not None else fields.whole("max_completion_tokens", None, 1),
        temperature=fields.number("temperature", 0.0, 0, 2), top_p=fields.number("top_p", 1.0, 0, 1),
        top_k=fields.whole("top_k", 0, 0) or 0, seed=fields.whole("seed", None, 0), stop_sequences=fields.strings("stop"),
        **more,
    )  # fmt: skip
    for name in ("model", *HARMLESS):
        fields.take(name, (str, dict, bool))
    fields.take("stream", bool)
    fields.take("store", bool)
    for name in ("presence_penalty", "frequency_penalty"):
        fields.number(name, 0, 0, 0)
    if fields.whole("n", 1, 1) != 1:
        raise Invalid("Malformed input request: n must be 1; ask several times instead")
    fields.end()
    return ask


def _usage(result: Answer) -> Json:
    total = result.input_tokens + result.output_tokens
    return {"prompt_tokens": result.input_tokens, "completion_tokens": result.output_tokens, "total_tokens": total}


def _openai_tools(fields: Fields) -> Json | None:
    tools = []
    for number, tool in enumerate(fields.take("tools", list, [])):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            raise Invalid(f"Malformed input request: tools.{number} must have type function, and the function")
        name = string_in(function, "name", f"tools.{number}.function")
        tools.append((name, function.get("description") or "", function.get("parameters") or {"type": "object"}))
    choice = fields.take("tool_choice", (str, dict), "auto")
    if choice == "none":
        return None
    if isinstance(choice, dict):
        return tool_config(
            tools, {"tool": {"name": string_in(choice.get("function") or {}, "name", "tool_choice.function")}}
        )
    return tool_config(tools, {"any": {}} if choice == "required" else None)


def _openai_schema(fields: Fields) -> str | None:
    wanted = fields.take("response_format", dict, {})
    kind = wanted.get("type", "text")
    if kind == "json_object":
        return '{"type": "object"}'
    if kind == "json_schema":
        schema = (wanted.get("json_schema") or {}).get("schema")
        if not isinstance(schema, dict):
            raise Invalid("Malformed input request: response_format.json_schema.schema must be a JSON schema")
        return msgspec.json.encode(schema).decode()
    if kind != "text":
        raise Invalid(
            f"Malformed input request: response_format.type is {kind!r}; text, json_object and json_schema are known"
        )
    return None


def _logprobs(tokens: Sequence[Likelihood]) -> Json:
    def one(text: str, logprob: float) -> Json:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return {
        "content": [{**one(token.text, token.logprob), "top_logprobs": [one(*top) for top in token.top]} for token in tokens],
        "refusal": None,
    }  # fmt: skip


def chat(body: Json) -> Body:
    """Chat completions. Raises Invalid."""
    fields = Fields(body)
    messages = blocks_of(fields.take("messages", list, []))
    system = [
        block for message in messages if message["role"] in ("system", "developer") for block in message["content"]
    ]
    turns = [message for message in messages if message["role"] not in ("system", "developer")]
    config = _openai_tools(fields)
    top = fields.whole("top_logprobs", 0, 0)
    tells = fields.take("logprobs", bool, False)
    if (top or 0) > 20:
        raise Invalid(f"Malformed input request: top_logprobs is {top}; it must be at most 20")
    # A model cannot be kept from writing a second call, but only one is then passed on.
    most_calls = None if fields.take("parallel_tool_calls", bool, True) else 1
    tells_usage = (fields.take("stream_options", dict, {})).get("include_usage", False)
    ask = _openai_ask(
        fields, conversation_of(turns, system or None, config), tool_choice=choice_of(config), schema=_openai_schema(fields),
        logprobs=top if tells else None,
    )  # fmt: skip

    def head(model_id: str, kind: str) -> Json:
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex[:24]}",
            "object": kind,
            "created": int(time.time()),
            "model": model_id,
        }

    def reason(result: Answer) -> str:
        return {"length": "length", "calls": "tool_calls"}.get(result.stopped_by, "stop")

    def calls(result: Answer) -> list[Json]:
        return [
            {
                "id": call.id, "type": "function",
                "function": {"name": call.name, "arguments": msgspec.json.encode(call.arguments).decode()},
            }
            for call in result.calls[:most_calls]
        ]  # fmt: skip

    def whole(model_id: str, result: Answer) -> Json:
        message: Json = {"role": "assistant", "content": result.text}
        if result.calls:
            message |= {"content": result.text or None, "tool_calls": calls(result)}
        told = _logprobs(result.tokens) if tells else None
        choice = {"index": 0, "message": message, "logprobs": told, "finish_reason": reason(result)}
        return {**head(model_id, "chat.completion"), "choices": [choice], "usage": _usage(result)}

    def events(model_id: str, pieces: Iterator[Delta | Answer]) -> Iterator[Json]:
        item = next(pieces)
        same = head(model_id, "chat.completion.chunk")
        yield {**same, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
        while isinstance(item, Delta):
            told = {"logprobs": _logprobs(item.tokens)} if tells else {}
            yield {**same, "choices": [{"index": 0, "delta": {"content": item.text}, "finish_reason": None, **told}]}
            item = next(pieces)
        for index, call in enumerate(calls(item)):
            delta = {"tool_calls": [{"index": index, **call}]}
            yield {**same, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        end = [{"index": 0, "delta": {}, "finish_reason": reason(item)}]
        if tells_usage:  # then it comes by itself, after the end
            yield {**same, "choices": end}
            yield {**same, "choices": [], "usage": _usage(item), METRICS: metrics(item)}
        else:
            yield {**same, "choices": end, "usage": _usage(item), METRICS: metrics(item)}

    return Body(ask, whole, events)


def completion(body: Json) -> Body:
    """Completions of a text. Raises Invalid."""
    fields = Fields(body)
    ask = _openai_ask(fields, fields.take("prompt", str, ""))

    def head(model_id: str) -> Json:
        created = int(time.time())
        return {
            "id": f"cmpl-{uuid.uuid4().hex[:24]}",
            "object": "text_completion",
            "created": created,
            "model": model_id,
        }

    def choice(text: str, reason: str | None) -> list[Json]:
        return [{"index": 0, "text": text, "finish_reason": reason, "logprobs": None}]

    def whole(model_id: str, result: Answer) -> Json:
        reason = "length" if result.stopped_by == "length" else "stop"
        return {**head(model_id), "choices": choice(result.text, reason), "usage": _usage(result)}

    def events(model_id: str, pieces: Iterator[Delta | Answer]) -> Iterator[Json]:
        same = head(model_id)
        for item in pieces:
            if isinstance(item, Delta):
                yield {**same, "choices": choice(item.text, None)}
            else:
                yield {**whole(model_id, item), **same, "choices": choice("", "stop"), METRICS: metrics(item)}

    return Body(ask, whole, events)
