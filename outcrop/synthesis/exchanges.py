"""A logged call as what was asked and answered, whichever family wrote its bodies, ours or Bedrock's own.

Shapes: AWS user guide, "Inference request parameters"; published invocation logs. The family is told by the fields.
"""

import re
from dataclasses import dataclass
from typing import Any

from outcrop.logs import Logged
from outcrop.names import base_model_id, resource_of, without_geography
from outcrop.rendering import Conversation, Message

LLAMA_TURN = re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\s*(.*?)(?:<\|eot_id\|>|\Z)", re.DOTALL)
HUMAN_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):(.*?)(?=\n\nHuman:|\n\nAssistant:|\Z)", re.DOTALL)
CUT = frozenset({"max_tokens", "length", "max_length", "LENGTH"})
STOPS = ("stopReason", "stop_reason", "completionReason", "finish_reason")


@dataclass(frozen=True)
class Exchange:
    """What was asked, up to the user's last turn, and what was answered, if that was logged and is text."""

    asked: Conversation
    answer: str | None
    model: str
    request_id: str
    place: str
    is_cut: bool = False


class _NoText(Exception):
    """The call holds something that is not text; the message says what."""


def exchange_of(logged: Logged) -> Exchange | str:
    """The exchange, or why the call has none to learn from."""
    if logged.error:
        return f"the call was refused ({logged.error})"
    if not isinstance(logged.input_body, dict):
        return "the log has no input body"
    try:
        asked = _asked(logged.input_body)
        answer, is_cut = _answer(logged.output_body)
    except _NoText as error:
        return str(error)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        return f"the bodies have no known shape ({type(error).__name__}: {error})"
    roles = [message.role for message in asked.messages]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        return "the turns do not alternate from user to assistant, or do not end with the user's"
    if not asked.messages[-1].text.strip():
        return "the prompt is empty"
    return Exchange(asked, answer, logged.model, logged.request_id, logged.place, is_cut)


def same_model(one: str, other: str) -> bool:
    """Whether two ids mean the same model: apart from ARNs, inference profiles' geographies and context suffixes."""
    return _plain_id(one) == _plain_id(other)


def _plain_id(identifier: str) -> str:
    kind, resource = resource_of(identifier)
    plain = base_model_id(identifier)
    return without_geography(plain if kind in ("", "foundation-model", "inference-profile") else resource)


def _asked(body: dict[str, Any]) -> Conversation:
    if isinstance(body.get("messages"), list):
        turns = [(str(turn["role"]), _text(turn.get("content"), turn)) for turn in body["messages"]]
        system = [text for role, text in turns if role in ("system", "developer")]
        if body.get("system"):
            system.insert(0, _text(body["system"], {}))
        messages = [Message(role, text) for role, text in turns if role not in ("system", "developer")]
        return Conversation(tuple(messages), "\n".join(system) or None)
    prompt = body.get("prompt", body.get("inputText"))
    if not isinstance(prompt, str):
        raise _NoText("the call asks for no text")
    for pattern, user in ((LLAMA_TURN, "user"), (HUMAN_TURN, "Human")):
        turns = [(role, text.strip()) for role, text in pattern.findall(prompt)]
        if turns:
            system = [text for role, text in turns if role == "system"]
            before = prompt[: pattern.search(prompt).start()].strip() if user == "Human" else ""  # type: ignore[union-attr]
            system = [before, *system] if before else system
            said = [Message("user" if role == user else "assistant", text) for role, text in turns if role != "system"]
            if said and said[-1].role == "assistant" and not said[-1].text:  # the turn that was to be written
                said.pop()
            return Conversation(tuple(said), "\n".join(system) or None)
    if "<|" in prompt or "[INST]" in prompt:
        raise _NoText("the prompt is written in a model's own template, which is not known")
    return Conversation.of(prompt)


def _text(content: Any, turn: dict[str, Any]) -> str:
    if turn.get("tool_calls"):
        raise _NoText("the call uses tools")
    if isinstance(content, str):
        return content
    texts = []
    for block in content or ():
        if "toolUse" in block or "toolResult" in block or block.get("type") in ("tool_use", "tool_result"):
            raise _NoText("the call uses tools")
        if "cachePoint" in block:
            continue
        if not isinstance(block.get("text"), str):
            raise _NoText(f"the call holds {next(iter(block), 'nothing')}, not text alone")
        texts.append(block["text"])
    return "\n".join(texts)


def _answer(body: Any) -> tuple[str | None, bool]:
    """The answer's text, and whether it was cut at its limit."""
    if body is None:
        return None, False
    chunks = [chunk for chunk in body if isinstance(chunk, dict)] if isinstance(body, list) else [body]
    text = "".join(_piece(chunk) for chunk in chunks)
    return text, any(_is_cut(chunk) for chunk in chunks)


def _piece(body: dict[str, Any]) -> str:
    """The text in a whole answer, or in a chunk of one."""
    if "output" in body:  # Converse, Nova
        return _text(body["output"]["message"]["content"], {})
    if "contentBlockDelta" in body:
        return str(body["contentBlockDelta"]["delta"].get("text", ""))
    if isinstance(body.get("content"), list):  # Claude
        return _text(body["content"], {})
    block = body.get("content_block") or (body.get("contentBlockStart") or {}).get("start") or {}
    if block.get("type") == "tool_use" or "toolUse" in block:
        raise _NoText("the call uses tools")
    if isinstance(body.get("delta"), dict):
        return str(body["delta"].get("text", ""))
    if "choices" in body:  # OpenAI
        choice = (body["choices"] or [{}])[0]
        message = choice.get("message") or choice.get("delta") or {}
        if message.get("tool_calls"):
            raise _NoText("the call uses tools")
        return str(message.get("content") or choice.get("text") or "")
    if "results" in body:  # Titan
        return str(body["results"][0]["outputText"])
    return next((str(body[name]) for name in ("generation", "completion", "outputText") if body.get(name)), "")


def _is_cut(body: dict[str, Any]) -> bool:
    places = [body, *(body.get("results") or ()), *(body.get("choices") or ())]
    places += [body[name] for name in ("delta", "messageStop") if isinstance(body.get(name), dict)]
    return any(place.get(name) in CUT for place in places for name in STOPS)
