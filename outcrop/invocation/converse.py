"""Converse, for every model."""

from collections.abc import Iterator
from typing import Any

from outcrop.errors import Invalid
from outcrop.invocation.answer import MOST_SEED, Answer, Ask, Delta, Invocation, answer, stream
from outcrop.rendering import Conversation, Message

STOP_REASONS = {"end": "end_turn", "length": "max_tokens", "sequence": "stop_sequence"}
UNSUPPORTED = ("toolConfig", "guardrailConfig", "promptVariables", "outputConfig")


def conversation_of(messages: list[dict[str, Any]], system: list[dict[str, Any]] | None) -> Conversation:
    """Bedrock's messages as a conversation. Raises Invalid for roles out of turn and content that is not text."""
    if not messages:
        raise Invalid(
            "A conversation must start with a user message. Try again with a conversation that starts with a user message."
        )
    turns: list[Message] = []
    for number, message in enumerate(messages):
        expected = ("user", "assistant")[number % 2]
        if message["role"] != expected:
            raise Invalid(
                f"messages.{number}.role is {message['role']!r}; roles must alternate between user and assistant, user first"
            )
        text = _text(message["content"], f"messages.{number}.content")
        if not text.strip():
            raise Invalid(f"The text field in the ContentBlock object at messages.{number}.content is blank.")
        turns.append(Message(message["role"], text))
    prompt = _text(system, "system") if system else None
    return Conversation(tuple(turns), prompt)


def _text(blocks: list[dict[str, Any]], where: str) -> str:
    texts = []
    for index, block in enumerate(blocks):
        kinds = [kind for kind in block if kind not in ("text", "cachePoint")]
        if kinds:
            raise Invalid(f"{where}.{index}.{kinds[0]} is not supported by this model: it reads text only")
        if "text" in block:
            texts.append(block["text"])
    return "\n".join(texts)


def ask_of(request: dict[str, Any]) -> Ask:
    """A Converse request as what is asked. `additionalModelRequestFields` may hold seed, top_k (topK).

    Raises Invalid for what is not supported: it is refused rather than left out.
    """
    for name in UNSUPPORTED:
        if request.get(name):
            raise Invalid(f"{name} is not supported by Outcrop yet; leave it out")
    inference = request.get("inferenceConfig") or {}
    more = dict(request.get("additionalModelRequestFields") or {})
    seed = more.pop("seed", None)
    top_k = more.pop("top_k", None) or more.pop("topK", None) or 0
    if more:
        raise Invalid(f"additionalModelRequestFields.{next(iter(more))} is not known; known are seed, top_k")
    for name, value in (("top_k", top_k), ("seed", seed)):
        if value is not None and (type(value) is not int or not 0 <= value <= MOST_SEED):
            raise Invalid(
                f"additionalModelRequestFields.{name} is {value!r}; it must be a whole number from 0 to {MOST_SEED}"
            )
    conversation = conversation_of(request.get("messages") or [], request.get("system"))
    if conversation.messages[-1].role != "user":
        raise Invalid(
            "A conversation must end with a user message. Try again with a conversation that ends with a user message."
        )
    return Ask(
        prompt=conversation,
        max_tokens=inference.get("maxTokens"),
        temperature=inference.get("temperature", 0.0),
        top_p=inference.get("topP", 1.0),
        top_k=top_k,
        seed=seed,
        stop_sequences=tuple(inference.get("stopSequences") or ()),
    )


def _end(result: Answer) -> dict[str, Any]:
    usage = {
        "inputTokens": result.input_tokens,
        "outputTokens": result.output_tokens,
        "totalTokens": result.input_tokens + result.output_tokens,
    }
    return {"usage": usage, "metrics": {"latencyMs": result.latency_ms}}


def converse(invocation: Invocation, request: dict[str, Any]) -> dict[str, Any]:
    """Converse's answer."""
    result = answer(invocation, request["modelId"], ask_of(request))
    message = {"role": "assistant", "content": [{"text": result.text}]}
    return {"output": {"message": message}, "stopReason": STOP_REASONS[result.stopped_by], **_end(result)}


def converse_stream(invocation: Invocation, request: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """ConverseStream's events, by name."""
    pieces = stream(invocation, request["modelId"], ask_of(request))
    try:
        item = next(pieces)  # before the first event, errors are ordinary answers
        yield "messageStart", {"role": "assistant"}
        while isinstance(item, Delta):
            yield "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": item.text}}
            item = next(pieces)
        yield "contentBlockStop", {"contentBlockIndex": 0}
        yield "messageStop", {"stopReason": STOP_REASONS[item.stopped_by]}
        yield "metadata", _end(item)
    finally:
        pieces.close()  # type: ignore[attr-defined]
