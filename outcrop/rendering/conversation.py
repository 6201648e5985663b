"""What is said, before any model's way of writing it down."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Tool:
    """A function that a model may ask to have called; `schema` is the JSON schema of its arguments."""

    name: str
    description: str
    schema: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class ToolCall:
    """What a model asks to have called."""

    id: str
    name: str
    arguments: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class ToolResult:
    """What a call gave, as text."""

    id: str
    text: str


@dataclass(frozen=True)
class Message:
    """One turn. `role` is "user" or "assistant"; calls are the assistant's, their results the user's."""

    role: str
    text: str
    calls: tuple[ToolCall, ...] = ()
    results: tuple[ToolResult, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """Turns that alternate from user to assistant, with an optional system prompt before them, and tools."""

    messages: tuple[Message, ...]
    system: str | None = None
    tools: tuple[Tool, ...] = ()

    @classmethod
    def of(cls, *texts: str, system: str | None = None) -> "Conversation":
        """A conversation from its turns alone: user, assistant, user, ..."""
        roles = ("user", "assistant")
        return cls(tuple(Message(roles[turn % 2], text) for turn, text in enumerate(texts)), system)
