"""What the families' bodies have alike: fields that are taken one by one, messages, tools."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from outcrop.errors import Invalid
from outcrop.invocation.answer import MOST_SEED, Answer, Ask, Delta

Json = dict[str, Any]
METRICS = "amazon-bedrock-invocationMetrics"


@dataclass(frozen=True)
class Body:
    """A native request: what is asked, and how its family writes answers."""

    ask: Ask
    whole: Callable[[str, Answer], Json]
    events: Callable[[str, Iterator[Delta | Answer]], Iterator[Json]]


def metrics(result: Answer) -> Json:
    """What Bedrock adds to a stream's last chunk."""
    return {
        "inputTokenCount": result.input_tokens,
        "outputTokenCount": result.output_tokens,
        "invocationLatency": result.latency_ms,
        "firstByteLatency": result.first_token_ms,
    }


class Fields:
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


def blocks_of(messages: list[Any]) -> list[Json]:
    """OpenAI's and Claude's messages as Converse's. Messages of one role in a row are one; a tool's is the user's."""
    converted: list[Json] = []
    for number, message in enumerate(messages):
        where = f"messages.{number}"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Invalid(f"Malformed input request: {where} must have a role and content")
        role = message["role"]
        if role == "tool":
            content = content_of(message.get("content"), f"{where}.content")
            blocks = [{"toolResult": {"toolUseId": string_in(message, "tool_call_id", where), "content": content}}]
            role = "user"
        else:
            said = message.get("content")
            calls = message.get("tool_calls") or []
            blocks = [] if calls and not said else content_of(said, f"{where}.content")
            blocks += [_openai_call(call, f"{where}.tool_calls.{index}") for index, call in enumerate(calls)]
        if converted and converted[-1]["role"] == role:
            converted[-1]["content"] += blocks
        else:
            converted.append({"role": role, "content": blocks})
    return converted


def _openai_call(call: Any, where: str) -> Json:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise Invalid(f"Malformed input request: {where} must have a function with name and arguments")
    arguments = string_in(function, "arguments", where)
    try:
        given = msgspec.json.decode(arguments or "{}", type=Json)
    except msgspec.DecodeError as error:
        raise Invalid(f"Malformed input request: {where}.function.arguments is not a JSON object: {error}") from None
    return {
        "toolUse": {
            "toolUseId": string_in(call, "id", where),
            "name": string_in(function, "name", where),
            "input": given,
        }
    }


def string_in(given: Json, name: str, where: str) -> str:
    """A string that must be there. Raises Invalid."""
    value = given.get(name)
    if not isinstance(value, str):
        raise Invalid(f"Malformed input request: {where}.{name} is {value!r}; it must be a string")
    return value


def content_of(content: Any, where: str) -> list[Json]:
    """Text, or a list of a family's blocks, as Converse's blocks. Raises Invalid."""
    if isinstance(content, str):
        return [{"text": content}]
    if not isinstance(content, list):
        raise Invalid(f"Malformed input request: {where} must be a string or a list of blocks")
    return [
        _block({"text": block} if isinstance(block, str) else block, f"{where}.{n}") for n, block in enumerate(content)
    ]


def _block(block: Any, where: str) -> Json:
    kind = block.get("type", "text") if isinstance(block, dict) else type(block).__name__
    if kind == "tool_use":  # Claude's
        given = block.get("input") if isinstance(block.get("input"), dict) else {}
        return {
            "toolUse": {
                "toolUseId": string_in(block, "id", where),
                "name": string_in(block, "name", where),
                "input": given,
            }
        }
    if kind == "tool_result":
        content = content_of(block.get("content") or "", f"{where}.content")
        return {"toolResult": {"toolUseId": string_in(block, "tool_use_id", where), "content": content}}
    text = block.get("text") if isinstance(block, dict) else None
    if not isinstance(text, str) or kind != "text":
        raise Invalid(f"Malformed input request: {where} is {kind!r}; this model reads text only")
    return {"text": text}


def tool_config(tools: list[Any], choice: Json | None) -> Json | None:
    """Tools, as (name, description, schema), and Converse's choice of them. Raises Invalid for a choice among none."""
    if not tools and choice:
        raise Invalid("Malformed input request: tool_choice needs tools to choose from")
    if not tools:
        return None
    specs = [
        {"toolSpec": {"name": name, "description": text, "inputSchema": {"json": schema}}}
        for name, text, schema in tools
    ]
    return {"tools": specs, "toolChoice": choice or {"auto": {}}}
