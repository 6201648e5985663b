"""Converse, for every model."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from outcrop.errors import Invalid
from outcrop.invocation.answer import MOST_SEED, Answer, Ask, Delta, Invocation, answer, stream
from outcrop.rendering import Conversation, Message, Tool, ToolCall, ToolResult

STOP_REASONS = {"end": "end_turn", "length": "max_tokens", "sequence": "stop_sequence", "calls": "tool_use"}
UNSUPPORTED = ("guardrailConfig", "promptVariables")
Json = dict[str, Any]


def conversation_of(messages: list[Json], system: list[Json] | None, tool_config: Json | None = None) -> Conversation:
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
        turns.append(
            _message(message, f"messages.{number}.content", {call.id for call in turns[-1].calls} if turns else set())
        )
    prompt = _text(system, "system") if system else None
    return Conversation(tuple(turns), prompt, _tools(tool_config))


def _message(message: Json, where: str, asked: set[str]) -> Message:
    calls, results, words = [], [], []
    for index, block in enumerate(message["content"]):
        if (call := block.get("toolUse")) is not None:
            if message["role"] != "assistant":
                raise Invalid(f"{where}.{index}.toolUse belongs to the assistant's messages")
            calls.append(ToolCall(call["toolUseId"], call["name"], call["input"]))
        elif (result := block.get("toolResult")) is not None:
            if result["toolUseId"] not in asked:
                raise Invalid(
                    f"{where}.{index}.toolResult.toolUseId is {result['toolUseId']!r}; the message before asks for no such call"
                )
            results.append(ToolResult(result["toolUseId"], _result_text(result, f"{where}.{index}.toolResult.content")))
        else:
            words.append(block)
    if missing := asked - {result.id for result in results}:
        raise Invalid(f"{where} has no toolResult for the call {sorted(missing)[0]!r} of the message before")
    text = _text(words, where)
    if not text.strip() and not calls and not results:
        raise Invalid(f"The text field in the ContentBlock object at {where} is blank.")
    return Message(message["role"], text, tuple(calls), tuple(results))


def _result_text(result: Json, where: str) -> str:
    """A result as text: words as they are, objects as JSON."""
    texts = []
    for index, block in enumerate(result["content"]):
        if "json" in block:
            texts.append(json.dumps(block["json"], ensure_ascii=False))
        elif "text" in block:
            texts.append(block["text"])
        else:
            raise Invalid(
                f"{where}.{index}.{next(iter(block), '')} is not supported by this model: it reads text and json"
            )
    return "\n".join(texts)


def _tools(tool_config: Json | None) -> tuple[Tool, ...]:
    tools = []
    for index, entry in enumerate((tool_config or {}).get("tools", ())):
        if "systemTool" in entry:
            raise Invalid(f"toolConfig.tools.{index}.systemTool is not supported by Outcrop")
        if "toolSpec" in entry:
            spec = entry["toolSpec"]
            tools.append(Tool(spec["name"], spec.get("description", ""), spec["inputSchema"].get("json", {})))
    return tuple(tools)


def choice_of(tool_config: Json | None) -> str:
    """Whether a tool must be called, as an Ask says it."""
    choice = (tool_config or {}).get("toolChoice") or {"auto": {}}
    return f"tool:{choice['tool']['name']}" if "tool" in choice else next(iter(choice))


def _schema(output_config: Json | None) -> str | None:
    """The JSON schema of a request for structured output. Raises Invalid."""
    wanted = output_config or {}
    if "effort" in wanted:
        raise Invalid("outputConfig.effort is not supported by this model; leave it out")
    if "textFormat" not in wanted:
        return None
    structure = (wanted["textFormat"].get("structure") or {}).get("jsonSchema")
    if structure is None:
        raise Invalid("outputConfig.textFormat.structure.jsonSchema is missing")
    schema: str = structure["schema"]
    return schema


def _text(blocks: list[Json], where: str) -> str:
    texts = []
    for index, block in enumerate(blocks):
        kinds = [kind for kind in block if kind not in ("text", "cachePoint")]
        if kinds:
            raise Invalid(f"{where}.{index}.{kinds[0]} is not supported by this model: it reads text only")
        if "text" in block:
            texts.append(block["text"])
    return "\n".join(texts)


def ask_of(request: Json) -> Ask:
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
    if more.get("thinking") == {"type": "disabled"}:
        del more["thinking"]
    if more:
        raise Invalid(f"additionalModelRequestFields.{next(iter(more))} is not known; known are seed, top_k")
    for name, value in (("top_k", top_k), ("seed", seed)):
        if value is not None and (type(value) is not int or not 0 <= value <= MOST_SEED):
            raise Invalid(
                f"additionalModelRequestFields.{name} is {value!r}; it must be a whole number from 0 to {MOST_SEED}"
            )
    tools = request.get("toolConfig")
    conversation = conversation_of(request.get("messages") or [], request.get("system"), tools)
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
        schema=_schema(request.get("outputConfig")),
        tool_choice=choice_of(tools),
    )


def _end(result: Answer) -> Json:
    usage = {
        "inputTokens": result.input_tokens,
        "outputTokens": result.output_tokens,
        "totalTokens": result.input_tokens + result.output_tokens,
    }
    return {"usage": usage, "metrics": {"latencyMs": result.latency_ms}}


def converse(invocation: Invocation, request: Json) -> Json:
    """Converse's answer."""
    return _whole(request, answer(invocation, request["modelId"], ask_of(request)))


def _whole(request: Json, result: Answer) -> Json:
    content: list[Json] = [{"text": result.text}] if result.text or not result.calls else []
    content += [
        {"toolUse": {"toolUseId": call.id, "name": call.name, "input": call.arguments}} for call in result.calls
    ]
    message = {"role": "assistant", "content": content}
    reason = STOP_REASONS[result.stopped_by]
    return {"output": {"message": message}, "stopReason": reason, **_more_fields(request, result), **_end(result)}


def _more_fields(request: Json, result: Answer) -> Json:
    """The native answer's fields that were asked for by path; those that it does not have are left out, as at AWS."""
    paths = request.get("additionalModelResponseFieldPaths") or ()
    return (
        {"additionalModelResponseFields": {"stop_sequence": result.sequence or None}}
        if "/stop_sequence" in paths
        else {}
    )


def converse_stream(
    invocation: Invocation, request: Json, ended: Callable[[Json], None] = lambda whole: None
) -> Iterator[tuple[str, Json]]:
    """ConverseStream's events, by name. `ended` gets what Converse would have answered, before the last events."""
    pieces = stream(invocation, request["modelId"], ask_of(request))
    try:
        item = next(pieces)  # before the first event, errors are ordinary answers
        yield "messageStart", {"role": "assistant"}
        begin = 0
        if isinstance(item, Delta) or not item.calls:
            while isinstance(item, Delta):
                yield "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": item.text}}
                item = next(pieces)
            ended(_whole(request, item))
            yield "contentBlockStop", {"contentBlockIndex": 0}
            begin = 1
        else:
            ended(_whole(request, item))
        for index, call in enumerate(item.calls, begin):
            named = {"toolUse": {"toolUseId": call.id, "name": call.name}}
            yield "contentBlockStart", {"contentBlockIndex": index, "start": named}
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            yield "contentBlockDelta", {"contentBlockIndex": index, "delta": {"toolUse": {"input": arguments}}}
            yield "contentBlockStop", {"contentBlockIndex": index}
        yield "messageStop", {"stopReason": STOP_REASONS[item.stopped_by], **_more_fields(request, item)}
        yield "metadata", _end(item)
    finally:
        pieces.close()  # type: ignore[attr-defined]
