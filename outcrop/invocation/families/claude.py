"""Claude's bodies."""

import uuid
from collections.abc import Iterator

import msgspec

from outcrop.errors import Invalid
from outcrop.invocation.answer import Answer, Ask, Delta
from outcrop.invocation.converse import choice_of, conversation_of
from outcrop.invocation.families.body import (
    METRICS,
    Body,
    Fields,
    Json,
    blocks_of,
    content_of,
    metrics,
    string_in,
    tool_config,
)
from outcrop.rendering import ToolCall

# Of the interface: AWS's documented one, and that which Anthropic's client sends from 2.13 on.
VERSIONS = ("bedrock-2023-05-31", "2026-10-21")


def claude(body: Json) -> Body:
    """Anthropic's messages. Raises Invalid."""
    fields = Fields(body)
    version = fields.take("anthropic_version", str, "")
    if version not in VERSIONS:
        raise Invalid(f"Malformed input request: anthropic_version is {version!r}; it must be 'bedrock-2023-05-31'")
    system = fields.take("system", (str, list))
    most = fields.whole("max_tokens", None, 1)
    if most is None:
        raise Invalid("Malformed input request: max_tokens is required")
    tools = [
        (string_in(tool, "name", f"tools.{n}"), tool.get("description") or "", tool.get("input_schema") or {})
        for n, tool in enumerate(fields.take("tools", list, []))
    ]
    choice = fields.take("tool_choice", dict, {})
    kind = choice.get("type", "auto")
    chosen: Json | None = {"tool": {"name": choice.get("name", "")}} if kind == "tool" else None
    if kind == "any":
        chosen = {"any": {}}
    if kind == "none":
        tools = []
    config = tool_config(tools, chosen)
    turns = blocks_of(fields.take("messages", list, []))
    ask = Ask(
        prompt=conversation_of(turns, content_of(system, "system") if system else None, config),
        max_tokens=most, temperature=fields.number("temperature", 0.0, 0, 1), top_p=fields.number("top_p", 1.0, 0, 1),
        top_k=fields.whole("top_k", 0, 0) or 0, stop_sequences=fields.strings("stop_sequences"),
        tool_choice=choice_of(config), schema=_schema(fields),
    )  # fmt: skip
    fields.take("metadata", dict)
    fields.take("stream", bool)
    fields.take("service_tier", str)
    if fields.take("anthropic_beta", list, []):
        raise Invalid("Malformed input request: anthropic_beta is not supported here")
    if fields.take("thinking", dict, {}).get("type", "disabled") != "disabled":
        raise Invalid("Malformed input request: thinking is not supported by this model")
    fields.end()
    reasons = {"end": "end_turn", "length": "max_tokens", "sequence": "stop_sequence", "calls": "tool_use"}

    def head(model_id: str) -> Json:
        return {"id": f"msg_bdrk_{uuid.uuid4().hex[:24]}", "type": "message", "role": "assistant", "model": model_id}

    def ending(result: Answer) -> Json:
        return {"stop_reason": reasons[result.stopped_by], "stop_sequence": result.sequence or None}

    def whole(model_id: str, result: Answer) -> Json:
        usage = {"input_tokens": result.input_tokens, "output_tokens": result.output_tokens}
        content: list[Json] = [{"type": "text", "text": result.text}] if result.text or not result.calls else []
        content += [{**begun(call), "input": call.arguments} for call in result.calls]
        return {**head(model_id), "content": content, **ending(result), "usage": usage}

    def begun(call: ToolCall) -> Json:
        return {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}

    def events(model_id: str, pieces: Iterator[Delta | Answer]) -> Iterator[Json]:
        item = next(pieces)
        start: Json = {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        yield {"type": "message_start", "message": {**head(model_id), **start}}
        begin = 0
        if isinstance(item, Delta) or not item.calls:
            yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
            while isinstance(item, Delta):
                yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": item.text}}
                item = next(pieces)
            yield {"type": "content_block_stop", "index": 0}
            begin = 1
        for index, call in enumerate(item.calls, begin):
            yield {"type": "content_block_start", "index": index, "content_block": begun(call)}
            partial = {"type": "input_json_delta", "partial_json": msgspec.json.encode(call.arguments).decode()}
            yield {"type": "content_block_delta", "index": index, "delta": partial}
            yield {"type": "content_block_stop", "index": index}
        usage = {"input_tokens": item.input_tokens, "output_tokens": item.output_tokens}
        yield {"type": "message_delta", "delta": ending(item), "usage": usage}
        yield {"type": "message_stop", METRICS: metrics(item)}

    return Body(ask, whole, events)


def _schema(fields: Fields) -> str | None:
    wanted = fields.take("output_config", dict, {}).get("format")
    if wanted is None:
        return None
    if (
        not isinstance(wanted, dict)
        or wanted.get("type") != "json_schema"
        or not isinstance(wanted.get("schema"), dict)
    ):
        raise Invalid("Malformed input request: output_config.format must have type json_schema, and the schema")
    return msgspec.json.encode(wanted["schema"]).decode()
