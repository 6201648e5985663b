"""The forms in which Bedrock takes training data, and what each forbids.

Sources: AWS user guide, "Prepare data for fine-tuning" pages of Titan/Cohere/Llama (prompt and completion), Claude 3
Haiku (system and messages) and Nova/Llama 3.3 (bedrock-conversation-2024).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from outcrop.rendering import Conversation, Message

SCHEMA = "bedrock-conversation-2024"
# Claude's validator forbids these; the forms without the colon are allowed.
RESERVED = ("\nHuman:", "\nAssistant:")
BYTE = re.compile(r"\(byte (\d+)\)")
PATH = re.compile(r" - at `\$\.?(.*)`$")

Content = Conversation | str


class Problem(msgspec.Struct, frozen=True):
    """Something found in a line, or in a file as a whole (line 0). `column` is from 1, in bytes; None where it is not known.

    `kind` is a name of `datasets.kinds`. `file` counts the files of a check, the training file being 0; `other` is
    (file, line) of the row that it is about besides.
    """

    line: int
    field: str
    message: str
    column: int | None = None
    kind: str = "form"
    file: int = 0
    other: tuple[int, int] | None = None

    def __str__(self) -> str:
        where = (f"line {self.line}" + (f", column {self.column}" if self.column else "") + ": ") if self.line else ""
        return f"{where}{self.field}{' ' if self.field else ''}{self.message}"


class Pair(msgspec.Struct):
    """prompt and completion; further keys are tolerated, as AWS's own validator does."""

    prompt: str
    completion: str


class Turn(msgspec.Struct, forbid_unknown_fields=True):
    """A message whose content is a string."""

    role: str
    content: str


class Chat(msgspec.Struct, forbid_unknown_fields=True):
    """system and messages; the system prompt may be the first message instead, as in OpenAI's files."""

    messages: list[Turn]
    system: str | None = None


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """A piece of content; only text can be learned here."""

    text: str | None = None
    image: Any = None
    video: Any = None


class PartsTurn(msgspec.Struct, forbid_unknown_fields=True):
    """A message whose content is a list of parts."""

    role: str
    content: list[Part]


class BedrockChat(msgspec.Struct, forbid_unknown_fields=True):
    """bedrock-conversation-2024; Nova's files may leave schemaVersion out."""

    messages: list[PartsTurn]
    schemaVersion: str = SCHEMA
    system: list[Part] | None = None


class EvaluationRow(msgspec.Struct):
    """A row of an evaluation's data set; a pair is one, too."""

    prompt: str
    referenceResponse: str | None = None
    completion: str | None = None


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """A line of continued pre-training."""

    input: str


Found = list[tuple[str, str, str]]  # kind, field, message


def _pair(row: Pair, found: Found) -> Content:
    for field in ("prompt", "completion"):
        if not getattr(row, field).strip():
            found.append(("empty", field, "is empty"))
    return Conversation.of(row.prompt, row.completion)


def _chat(row: Chat, found: Found) -> Content:
    turns = row.messages
    if row.system is None and turns and turns[0].role in ("system", "developer"):  # OpenAI's way
        row = Chat(turns[1:], turns[0].content)
    messages = tuple(Message(turn.role, turn.content) for turn in row.messages)
    _check_turns(messages, found)
    for field, text in [
        ("system", row.system or ""),
        *((f"messages.{n}.content", m.text) for n, m in enumerate(messages)),
    ]:
        for reserved in RESERVED:
            if reserved in text:
                found.append(
                    (
                        "reserved",
                        field,
                        f"holds the reserved string {reserved!r}; leave out its colon or its line break",
                    )
                )
    if row.system is not None and not row.system.strip():
        found.append(("system", "system", "is empty; leave it out or fill it"))
    return Conversation(messages, row.system)


def _bedrock_chat(row: BedrockChat, found: Found) -> Content:
    if row.schemaVersion != SCHEMA and not row.schemaVersion.startswith("bedrock-"):
        found.append(("other-schema", "schemaVersion", f"is {row.schemaVersion!r}, not {SCHEMA!r}"))
    elif row.schemaVersion != SCHEMA:
        typo = " (the spelling 'conversion' is a slip in AWS's page)" if "conversion" in row.schemaVersion else ""
        found.append(("schema-version", "schemaVersion", f"is {row.schemaVersion!r}; it must be {SCHEMA!r}{typo}"))
    if row.system is not None and len(row.system) != 1:
        found.append(("system", "system", f"has {len(row.system)} parts; it must have exactly one"))
    messages = []
    for number, turn in enumerate(row.messages):
        if not turn.content:
            found.append(("empty", f"messages.{number}.content", "is empty"))
        texts = [
            _part_text(part, f"messages.{number}.content.{index}", found) for index, part in enumerate(turn.content)
        ]
        messages.append(Message(turn.role, "\n".join(texts)))
    system = [_part_text(part, f"system.{index}", found) for index, part in enumerate(row.system or [])]
    _check_turns(tuple(messages), found)
    return Conversation(tuple(messages), "\n".join(system) if system else None)


def _part_text(part: Part, field: str, found: Found) -> str:
    for kind in ("image", "video"):
        if getattr(part, kind) is not None:
            found.append(
                ("media", f"{field}.{kind}", "cannot be learned: base models here read text only; remove the row")
            )
    if part.text is None and part.image is None and part.video is None:
        found.append(("missing-key", f"{field}.text", "is missing"))
    return part.text or ""


def _evaluation(row: EvaluationRow, found: Found) -> Content:
    if not row.prompt.strip():
        found.append(("empty", "prompt", "is empty"))
    return Conversation.of(row.prompt, row.referenceResponse or row.completion or "")


def _text(row: Text, found: Found) -> Content:
    if not row.input.strip():
        found.append(("empty", "input", "is empty"))
    return row.input


def _check_turns(messages: tuple[Message, ...], found: Found) -> None:
    if len(messages) < 2:
        found.append(
            ("role", "messages", f"has {len(messages)} messages; it must have a user's and an assistant's at least")
        )
        return
    for number, message in enumerate(messages):
        expected = ("user", "assistant")[number % 2]
        if message.role != expected:
            found.append(
                (
                    "role",
                    f"messages.{number}.role",
                    f"is {message.role!r}; it must be {expected!r}: roles alternate, user first",
                )
            )
            return
        if not message.text.strip():
            found.append(("empty", f"messages.{number}.content", "is empty"))
    if messages[-1].role != "assistant":
        found.append(
            ("role", f"messages.{len(messages) - 1}.role", "is 'user'; the last message must be the assistant's")
        )


class Decoder(Protocol):
    """Bytes to a row; what does not decode raises msgspec's errors or UnicodeDecodeError."""

    def decode(self, line: bytes, /) -> Any: ...


@dataclass(frozen=True)
class Format:
    """A form of row: its name for messages, its keys, and how one is read."""

    name: str
    keys: tuple[str, ...]
    decoder: Decoder
    convert: Callable[[Any, Found], Content]


PAIRS = Format("prompt/completion", ("prompt", "completion"), msgspec.json.Decoder(Pair), _pair)
CHAT = Format("system + messages", ("messages",), msgspec.json.Decoder(Chat), _chat)
BEDROCK_CHAT = Format(SCHEMA, ("schemaVersion", "messages"), msgspec.json.Decoder(BedrockChat), _bedrock_chat)


class _Utf8:
    """A document is its text."""

    def decode(self, document: bytes) -> str:
        return document.decode()


def _document(text: str, found: Found) -> Content:
    if not text.strip():
        found.append(("empty", "", "is empty"))
    return text


TEXT = Format("input", ("input",), msgspec.json.Decoder(Text), _text)
DOCUMENTS = Format("plain text", (), _Utf8(), _document)
SUPERVISED = (BEDROCK_CHAT, CHAT, PAIRS)
EVALUATION = (Format("evaluation", ("prompt",), msgspec.json.Decoder(EvaluationRow), _evaluation), BEDROCK_CHAT, CHAT)
PLAIN_TEXT = (TEXT,)
FORMATS = {form.name: form for form in (*SUPERVISED, *EVALUATION, *PLAIN_TEXT, DOCUMENTS)}


def detect(line: bytes, allowed: tuple[Format, ...]) -> Format | str:
    """The format that a line is in, or what is wrong with it."""
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if isinstance(row, dict):
        for form in allowed:
            if any(key in row for key in form.keys) and (form is not BEDROCK_CHAT or _has_parts(row)):
                return form
    wanted = " or ".join("{" + ", ".join(form.keys) + ", ...}" for form in allowed)
    given = (
        f"the keys {', '.join(list(row)[:8]) or 'none'}" if isinstance(row, dict) else f"a JSON {type(row).__name__}"
    )
    return f"has {given}; a row must be an object such as {wanted}"


def _has_parts(row: dict[str, Any]) -> bool:
    """Whether a row with messages is in bedrock-conversation-2024's form: it says so, or its content is in parts."""
    turns = row.get("messages")
    first = turns[0] if isinstance(turns, list) and turns else None
    return "schemaVersion" in row or (isinstance(first, dict) and isinstance(first.get("content"), list))


def read_row(number: int, line: bytes, form: Format) -> tuple[Content | None, list[Problem]]:
    """A line's content, or everything that is wrong with it."""
    try:
        row = form.decoder.decode(line)
    except msgspec.ValidationError as error:
        text = str(error)
        path = PATH.search(text)
        field = re.sub(r"\[(\d+|\.\.\.)\]", r".\1", path.group(1)) if path else ""
        return None, [Problem(number, field, *_plain(PATH.sub("", text)))]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        place = BYTE.search(str(error))
        column = int(place.group(1)) + 1 if place else None
        return None, [Problem(number, "", f"is not JSON: {BYTE.sub('', str(error)).strip()}", column, "json")]
    found: Found = []
    content = form.convert(row, found)
    return content, [Problem(number, field, message, None, kind) for kind, field, message in found]


def _plain(message: str) -> tuple[str, None, str]:
    """msgspec's words as ours, without a column, and their kind: "Object missing required field `completion`" ->
    "completion is missing"."""
    missing = re.fullmatch(r"Object missing required field `(.*)`", message)
    if missing:
        return f"{missing.group(1)} is missing", None, "missing-key"
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", message)
    if unknown:
        return f"{unknown.group(1)} is not a known key; remove it", None, "unknown-key"
    return message[:1].lower() + message[1:], None, "type"
