"""What is asked, and what its answer is held against: the rows of an evaluation's data set."""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from outcrop.datasets.conversion import Reading, content_of, read_objects
from outcrop.datasets.source import Source
from outcrop.errors import Invalid
from outcrop.rendering import Conversation, Message

CHAT_KEYS = ("schemaVersion", "system", "messages")
REFERENCES = ("referenceResponse", "completion", "answer", "response", "output", "label", "target")


@dataclass(frozen=True)
class Case:
    """A row: the prompt, the answer that is wanted if the row has one, and the row itself, whose other keys metrics and slices read."""

    line: int
    prompt: Conversation
    reference: str | None
    row: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> str:
        """One hash of prompt and reference."""
        turns = [[message.role, message.text] for message in self.prompt.messages]
        return hashlib.sha256(msgspec.json.encode([self.prompt.system, turns, self.reference])).hexdigest()

    @property
    def question(self) -> str:
        """The user's last turn."""
        return self.prompt.messages[-1].text


@dataclass(frozen=True)
class Response:
    """A model's answer; with `error` there is none. Tokens are None where they are not known."""

    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_ms: float | None = None
    is_whole: bool = True
    error: str = ""


def read_cases(source: Source, system: str = "", most: int | None = None) -> list[Case]:
    """The rows of a file: Bedrock's evaluation form, or any form of training data, whose last answer is then the reference.

    `system` is a system prompt for rows that have none. Rows may have further keys. Raises Invalid with the line of what cannot be
    read, and when there are no rows.
    """
    reading = Reading(system=system)
    cases: list[Case] = []
    for line, row in read_objects(source, reading):
        if most is not None and len(cases) >= most:
            break
        if isinstance(row.get("prompt"), str):
            own = row.get("system")
            asked = Conversation.of(row["prompt"], system=(own if isinstance(own, str) else system) or None)
            reference = _reference(row)
        else:
            chat = {name: row[name] for name in CHAT_KEYS if name in row} if "messages" in row else row
            content = content_of(source, line, chat, reading)
            if not isinstance(content, Conversation):
                raise Invalid(f"{source.uri}: line {line}: is plain text; a row needs a prompt")
            asked, reference = Conversation(content.messages[:-1], content.system), content.messages[-1].text
        if not asked.messages[-1].text.strip():
            raise Invalid(f"{source.uri}: line {line}: prompt is empty")
        cases.append(Case(line, asked, reference, row))
    if not cases:
        raise Invalid(f"{source.uri}: there are no rows")
    return cases


def _reference(row: dict[str, Any]) -> str | None:
    """The answer that is wanted: what Bedrock's evaluation and training rows call it first, then other names for it."""
    found = next((row[name] for name in REFERENCES if row.get(name) is not None), None)
    return found if isinstance(found, str | None) else msgspec.json.encode(found).decode()


def with_shots(case: Case, shots: Sequence[Case]) -> Case:
    """The same row with worked examples as earlier turns; they follow the row's own system prompt."""
    turns = [
        message for shot in shots for message in (*shot.prompt.messages, Message("assistant", shot.reference or ""))
    ]
    return Case(case.line, Conversation((*turns, *case.prompt.messages), case.prompt.system), case.reference, case.row)


def asking_instead(prompt: Conversation, text: str) -> Conversation:
    """The conversation with other words in its last turn."""
    return Conversation((*prompt.messages[:-1], Message("user", text)), prompt.system)


def value_at(row: dict[str, Any], path: str) -> Hashable:
    """What stands under a key, or under keys parted by dots; None when nothing does, and text of what is not a plain value."""
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str | int | float | bool | None) else msgspec.json.encode(value).decode()


def question_of(case: Case) -> str:
    """All that the user has said, system prompts apart: what makes two rows the same question."""
    return "\n".join(
        " ".join(message.text.split()).casefold() for message in case.prompt.messages if message.role == "user"
    )
