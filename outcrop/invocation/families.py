"""The bodies of InvokeModel, as each model family writes them.

The family is told by the body's fields, not by the model: a script written for Claude, Llama, Nova or an OpenAI model
runs on whatever stands behind its model id. Shapes: AWS user guide, "Inference request parameters and response fields";
streams as AWS's SDK samples parse them.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from outcrop.errors import Invalid
from outcrop.invocation.answer import MOST_SEED, Answer, Ask, Delta, Invocation, answer, stream
from outcrop.invocation.converse import conversation_of

Json = dict[str, Any]
METRICS = "amazon-bedrock-invocationMetrics"


@dataclass(frozen=True)
class Body:
    """A native request: what is asked, and how its family writes answers."""

    ask: Ask
    whole: Callable[[str, Answer], Json]
    events: Callable[[str, Iterator[Delta | Answer]], Iterator[Json]]


def read_body(data: bytes) -> Body:
    """A native body of any family. Raises Invalid that names the field and what is expected."""
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"Malformed input request: the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Invalid("Malformed input request: the body must be a JSON object")
    if "prompt" in body:
        return _llama(body) if "max_tokens" not in body else _completion(body)
    if "messages" not in body:
        raise Invalid("Malformed input request: expected prompt or messages in the body")
    if "anthropic_version" in body:
        return _claude(body)
    if "inferenceConfig" in body or body.get("schemaVersion") == "messages-v1":
        return _nova(body)
    return _chat(body)


def invoke(invocation: Invocation, model_id: str, data: bytes) -> tuple[bytes, Answer]:
    """InvokeModel's body, and the answer that it was made of."""
    body = read_body(data)
    result = answer(invocation, model_id, body.ask)
    return msgspec.json.encode(body.whole(model_id, result)), result


def invoke_stream(invocation: Invocation, model_id: str, data: bytes) -> Iterator[bytes]:
    """The chunks of InvokeModelWithResponseStream; the last one carries the invocation metrics."""
    body = read_body(data)
    pieces = stream(invocation, model_id, body.ask)
    try:
        yield from map(msgspec.json.encode, body.events(model_id, pieces))
    finally:
        pieces.close()  # type: ignore[attr-defined]


def _metrics(result: Answer) -> Json:
    return {
        "inputTokenCount": result.input_tokens,
        "outputTokenCount": result.output_tokens,
        "invocationLatency": result.latency_ms,
        "firstByteLatency": result.first_token_ms,
    }


# --- reading ---------------------------------------------------------------------------------------------------------


class _Fields:
    """A body's fields, each taken once; what is left over is refused."""

    def __init__(self, body: Json, prefix: str = "") -> None:
        self._left, self._prefix = dict(body), prefix

    def take(self, name: str, kinds: type | tuple[type, ...], default: Any = None) -> Any:
        """A field's value. Raises Invalid for another type."""
        value = self._left.pop(name, None)
        if value is None:
            return default
        allowed = kinds if isinstance(kinds, tuple) else (kinds,)
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            expected = " or ".join(kind.__name__ for kind in allowed)
            raise Invalid(f"Malformed input request: {self._prefix}{name} is {value!r}; it must be {expected}")
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number in a range."""
        value = self.take(name, (int, float), default)
        if not low <= value <= high:
            raise Invalid(
                f"Malformed input request: {self._prefix}{name} is {value}; it must lie between {low:g} and {high:g}"
            )
        return float(value)

    def whole(self, name: str, default: int | None, low: int) -> int | None:
        """A whole number from `low` on."""
        value: int | None = self.take(name, int, default)
        if value is not None and not low <= value <= MOST_SEED:
            raise Invalid(
                f"Malformed input request: {self._prefix}{name} is {value}; it must be at least {low}, at most 2^63"
            )
        return value

    def strings(self, name: str) -> tuple[str, ...]:
        """A list of strings, or one."""
        value = self.take(name, (list, str), [])
        listed = [value] if isinstance(value, str) else value
        if not all(isinstance(one, str) and one for one in listed):
            raise Invalid(f"Malformed input request: {self._prefix}{name} must hold strings that are not empty")
        return tuple(listed)

    def end(self) -> None:
        """Raise Invalid when a field was not taken: an option that does nothing is never accepted silently."""
        if self._left:
            raise Invalid(f"Malformed input request: {self._prefix}{next(iter(self._left))} is not supported here")


def _blocks(messages: list[Any]) -> list[Json]:
    """OpenAI's and Claude's messages with content as Converse's blocks."""
    converted = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or "content" not in message:
            raise Invalid(f"Malformed input request: messages.{number} must have a role and content")
        converted.append(
            {"role": message["role"], "content": _content(message["content"], f"messages.{number}.content")}
        )
    return converted


def _content(content: Any, where: str) -> list[Json]:
    if isinstance(content, str):
        return [{"text": content}]
    if not isinstance(content, list):
        raise Invalid(f"Malformed input request: {where} must be a string or a list of blocks")
    blocks = []
    for index, block in enumerate(content):
        if isinstance(block, str):
            block = {"text": block}
        text = block.get("text") if isinstance(block, dict) else None
        if not isinstance(text, str) or block.get("type", "text") != "text":
            kind = block.get("type") if isinstance(block, dict) else type(block).__name__
            raise Invalid(f"Malformed input request: {where}.{index} is {kind!r}; this model reads text only")
        blocks.append({"text": text})
    return blocks


# --- Llama ----------------------------------------------------------------------------------------------------------


def _llama(body: Json) -> Body:
    fields = _Fields(body)
    ask = Ask(
        prompt=fields.take("prompt", str, ""), max_tokens=fields.whole("max_gen_len", None, 1),
        temperature=fields.number("temperature", 0.0, 0, 1), top_p=fields.number("top_p", 1.0, 0, 1),
        top_k=fields.whole("top_k", 0, 0) or 0, seed=fields.whole("seed", None, 0), stop_sequences=fields.strings("stop"),
    )  # fmt: skip
    fields.end()

    def whole(_: str, result: Answer) -> Json:
        return {
            "generation": result.text,
            "prompt_token_count": result.input_tokens,
            "generation_token_count": result.output_tokens,
            "stop_reason": "length" if result.stopped_by == "length" else "stop",
        }

    def events(model_id: str, pieces: Iterator[Delta | Answer]) -> Iterator[Json]:
        for item in pieces:
            if isinstance(item, Delta):
                yield {
                    "generation": item.text,
                    "prompt_token_count": None,
                    "generation_token_count": None,
                    "stop_reason": None,
                }
            else:
                yield {**whole(model_id, item), "generation": "", METRICS: _metrics(item)}

    return Body(ask, whole, events)


# --- Claude ---------------------------------------------------------------------------------------------------------


def _claude(body: Json) -> Body:
    fields = _Fields(body)
    version = fields.take("anthropic_version", str, "")
    if version != "bedrock-2023-05-31":
        raise Invalid(f"Malformed input request: anthropic_version is {version!r}; it must be 'bedrock-2023-05-31'")
    system = fields.take("system", (str, list))
    most = fields.whole("max_tokens", None, 1)
    if most is None:
        raise Invalid("Malformed input request: max_tokens is required")
    ask = Ask(
        prompt=conversation_of(_blocks(fields.take("messages", list, [])), _content(system, "system") if system else None),
        max_tokens=most, temperature=fields.number("temperature", 0.0, 0, 1), top_p=fields.number("top_p", 1.0, 0, 1),
        top_k=fields.whole("top_k", 0, 0) or 0, stop_sequences=fields.strings("stop_sequences"),
    )  # fmt: skip
    fields.take("metadata", dict)
    fields.end()
    reasons = {"end": "end_turn", "length": "max_tokens", "sequence": "stop_sequence"}

    def head(model_id: str) -> Json:
        return {"id": f"msg_bdrk_{uuid.uuid4().hex[:24]}", "type": "message", "role": "assistant", "model": model_id}

    def ending(result: Answer) -> Json:
        return {"stop_reason": reasons[result.stopped_by], "stop_sequence": result.sequence or None}

    def whole(model_id: str, result: Answer) -> Json:
        usage = {"input_tokens": result.input_tokens, "output_tokens": result.output_tokens}
        return {**head(model_id), "content": [{"type": "text", "text": result.text}], **ending(result), "usage": usage}

    def events(model_id: str, pieces: Iterator[Delta | Answer]) -> Iterator[Json]:
        item = next(pieces)
        start: Json = {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        yield {"type": "message_start", "message": {**head(model_id), **start}}
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        while isinstance(item, Delta):
            yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": item.text}}
            item = next(pieces)
        yield {"type": "content_block_stop", "index": 0}
        usage = {"input_tokens": item.input_tokens, "output_tokens": item.output_tokens}
        yield {"type": "message_delta", "delta": ending(item), "usage": usage}
        yield {"type": "message_stop", METRICS: _metrics(item)}

    return Body(ask, whole, events)


# --- Nova -----------------------------------------------------------------------------------------------------------


def _nova(body: Json) -> Body:
    fields = _Fields(body)
    fields.take("schemaVersion", str)
    inference = _Fields(fields.take("inferenceConfig", dict, {}), "inferenceConfig.")
    most = inference.whole("maxTokens", None, 1)
    system = fields.take("system", list)
    ask = Ask(
        prompt=conversation_of(_blocks(fields.take("messages", list, [])), _content(system, "system") if system else None),
        max_tokens=most if most is not None else inference.whole("max_new_tokens", None, 1),
        temperature=inference.number("temperature", 0.0, 0, 1), top_p=inference.number("topP", 1.0, 0, 1),
        top_k=inference.whole("topK", 0, 0) or 0, stop_sequences=inference.strings("stopSequences"),
    )  # fmt: skip
    fields.end()
    inference.end()
    reasons = {"end": "end_turn", "length": "max_tokens", "sequence": "stop_sequence"}

    def usage(result: Answer) -> Json:
        total = result.input_tokens + result.output_tokens
        return {"inputTokens": result.input_tokens, "outputTokens": result.output_tokens, "totalTokens": total}

    def whole(_: str, result: Answer) -> Json:
        message = {"role": "assistant", "content": [{"text": result.text}]}
        return {"output": {"message": message}, "stopReason": reasons[result.stopped_by], "usage": usage(result)}

    def events(_: str, pieces: Iterator[Delta | Answer]) -> Iterator[Json]:
        item = next(pieces)
        yield {"messageStart": {"role": "assistant"}}
        while isinstance(item, Delta):
            yield {"contentBlockDelta": {"delta": {"text": item.text}, "contentBlockIndex": 0}}
            item = next(pieces)
        yield {"contentBlockStop": {"contentBlockIndex": 0}}
        yield {"messageStop": {"stopReason": reasons[item.stopped_by]}}
        yield {"metadata": {"usage": usage(item), "metrics": {}, "trace": {}}, METRICS: _metrics(item)}

    return Body(ask, whole, events)


# --- OpenAI ---------------------------------------------------------------------------------------------------------


def _openai_ask(fields: _Fields, prompt: Any) -> Ask:
    most = fields.whole("max_tokens", None, 1)
    ask = Ask(
        prompt=prompt, max_tokens=most if most is not None else fields.whole("max_completion_tokens", None, 1),
        temperature=fields.number("temperature", 0.0, 0, 2), top_p=fields.number("top_p", 1.0, 0, 1),
        top_k=fields.whole("top_k", 0, 0) or 0, seed=fields.whole("seed", None, 0), stop_sequences=fields.strings("stop"),
    )  # fmt: skip
    fields.take("model", str)
    fields.take("user", str)
    fields.take("stream", bool)
    if fields.whole("n", 1, 1) != 1:
        raise Invalid("Malformed input request: n must be 1; ask several times instead")
    fields.end()
    return ask


def _usage(result: Answer) -> Json:
    total = result.input_tokens + result.output_tokens
    return {"prompt_tokens": result.input_tokens, "completion_tokens": result.output_tokens, "total_tokens": total}


def _chat(body: Json) -> Body:
    fields = _Fields(body)
    messages = _blocks(fields.take("messages", list, []))
    system = [
        block for message in messages if message["role"] in ("system", "developer") for block in message["content"]
    ]
    turns = [message for message in messages if message["role"] not in ("system", "developer")]
    ask = _openai_ask(fields, conversation_of(turns, system or None))

    def head(model_id: str, kind: str) -> Json:
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex[:24]}",
            "object": kind,
            "created": int(time.time()),
            "model": model_id,
        }

    def reason(result: Answer) -> str:
        return "length" if result.stopped_by == "length" else "stop"

    def whole(model_id: str, result: Answer) -> Json:
        message = {"role": "assistant", "content": result.text}
        choice = {"index": 0, "message": message, "finish_reason": reason(result)}
        return {**head(model_id, "chat.completion"), "choices": [choice], "usage": _usage(result)}

    def events(model_id: str, pieces: Iterator[Delta | Answer]) -> Iterator[Json]:
        item = next(pieces)
        same = head(model_id, "chat.completion.chunk")
        yield {**same, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
        while isinstance(item, Delta):
            yield {**same, "choices": [{"index": 0, "delta": {"content": item.text}, "finish_reason": None}]}
            item = next(pieces)
        end = [{"index": 0, "delta": {}, "finish_reason": reason(item)}]
        yield {**same, "choices": end, "usage": _usage(item), METRICS: _metrics(item)}

    return Body(ask, whole, events)


def _completion(body: Json) -> Body:
    fields = _Fields(body)
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
                yield {**whole(model_id, item), **same, "choices": choice("", "stop"), METRICS: _metrics(item)}

    return Body(ask, whole, events)
