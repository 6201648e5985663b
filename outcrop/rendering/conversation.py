"""What is said, before any model's way of writing it down."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One turn. `role` is "user" or "assistant"."""

    role: str
    text: str


@dataclass(frozen=True)
class Conversation:
    """Turns that alternate from user to assistant, with an optional system prompt before them."""

    messages: tuple[Message, ...]
    system: str | None = None

    @classmethod
    def of(cls, *texts: str, system: str | None = None) -> "Conversation":
        """A conversation from its turns alone: user, assistant, user, ..."""
        roles = ("user", "assistant")
        return cls(tuple(Message(roles[turn % 2], text) for turn, text in enumerate(texts)), system)
