"""Rows from elsewhere into Bedrock's forms, and from one of these into another.

What is read: Bedrock's forms, OpenAI's chat files, ShareGPT's and Alpaca's, objects with a question and an answer under any
name, CSV and TSV. A row that a form cannot hold is an error that names it, never a row that says less.
"""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from outcrop.datasets.formats import BEDROCK_CHAT, CHAT, PAIRS, SCHEMA, SUPERVISED, TEXT, Content, detect, read_row
from outcrop.datasets.kinds import FAILS, KINDS
from outcrop.datasets.source import MOST_LINE_BYTES, Source, read_lines
from outcrop.errors import Invalid
from outcrop.rendering import Conversation, Message

# Names under which prompts and answers are found when nobody says where they are, the first that is there.
PROMPTS = ("prompt", "question", "instruction", "query", "input", "text", "user")
ANSWERS = (
    "completion",
    "answer",
    "response",
    "output",
    "referenceResponse",
    "label",
    "category",
    "target",
    "assistant",
)
# ShareGPT's names of who speaks.
SHAREGPT = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "system": "system",
}

Json = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """How rows are to be read where they do not say it themselves. Columns without a header are named by their number, from 1."""

    prompt: str = ""
    answer: str = ""
    system: str = ""
    has_header: bool = True


def read_any(source: Source, reading: Reading | None = None) -> Iterator[tuple[int, Content, Json]]:
    """(line, content, the row as it was) of every row of a file. Raises Invalid with the line of what cannot be read."""
    reading = reading or Reading()
    for line, row in read_objects(source, reading):
        yield line, content_of(source, line, row, reading), row


def read_objects(source: Source, reading: Reading | None = None) -> Iterator[tuple[int, Json]]:
    """(line, row) of every row of a file, as it is. Raises Invalid with the line of what cannot be read."""
    return _table(source, reading or Reading()) if source.uri.endswith((".csv", ".tsv")) else _objects(source)


def _table(source: Source, reading: Reading) -> Iterator[tuple[int, Json]]:
    try:
        text = source.path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(f"{source.uri}: is not UTF-8 at byte {error.start}; save the table as UTF-8") from None
    csv.field_size_limit(MOST_LINE_BYTES)
    table = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if source.uri.endswith(".tsv") else ",")
    names: list[str] | None = None
    for cells in _cells(source, table):
        if names is None and reading.has_header:
            names = cells
            continue
        if names is None:
            names = [str(number) for number in range(1, len(cells) + 1)]
        if len(cells) > len(names):
            raise Invalid(
                f"{source.uri}: line {table.line_num} has {len(cells)} cells for {len(names)} columns; quote cells that hold the delimiter"
            )
        if any(cells):
            yield table.line_num, dict(zip(names, cells, strict=False))


def _cells(source: Source, table: Any) -> Iterator[list[str]]:
    try:
        yield from table
    except csv.Error as error:
        raise Invalid(f"{source.uri}: line {table.line_num}: {error}") from None


def _objects(source: Source) -> Iterator[tuple[int, Json]]:
    with source.path.open("rb") as file:
        begins = file.read(64).lstrip()
    if begins.startswith(b"["):  # one JSON document, as Alpaca's and ShareGPT's files are
        try:
            for number, row in enumerate(msgspec.json.decode(source.path.read_bytes(), type=list[Json]), 1):
                yield number, row
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(f"{source.uri}: is not a list of JSON objects: {error}") from None
        return
    for number, line in read_lines(source):
        try:
            yield number, msgspec.json.decode(line, type=Json)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Invalid(f"{source.uri}: line {number} is not a JSON object: {error}") from None


def content_of(source: Source, line: int, row: Json, reading: Reading) -> Content:
    """What a row says, in whichever of the known forms it is. Raises Invalid with file and line."""
    if reading.prompt or reading.answer:
        return _pair(source, line, row, reading)
    if isinstance(row.get("conversations"), list):
        return _sharegpt(source, line, row, reading)
    if "instruction" in row and "output" in row:
        asked = "\n\n".join(str(row[name]) for name in ("instruction", "input") if row.get(name))
        if not asked or not isinstance(row["output"], str):
            raise Invalid(f"{source.uri}: line {line}: instruction and output must be texts")
        return Conversation.of(asked, row["output"], system=row.get("system") or reading.system or None)
    data = msgspec.json.encode(_plain_parts(row))
    form = detect(data, (*SUPERVISED, TEXT))
    if isinstance(form, str) or (form is PAIRS and "completion" not in row):
        return _pair(source, line, row, reading)
    content, problems = read_row(line, data, form)
    failing = [problem for problem in problems if KINDS[problem.kind].severity == FAILS]
    if content is None or failing:
        raise Invalid(f"{source.uri}: {'; '.join(map(str, failing))}")
    if isinstance(content, Conversation) and content.system is None and reading.system:
        return Conversation(content.messages, reading.system)
    return content


def _plain_parts(row: Json) -> Json:
    """OpenAI's content in parts as text; the rest as it is."""
    turns = row.get("messages")
    if "schemaVersion" in row or not isinstance(turns, list):
        return row
    plain = []
    for turn in turns:
        parts = turn.get("content") if isinstance(turn, dict) else None
        if (
            isinstance(parts, list)
            and parts
            and all(isinstance(part, dict) and part.get("type") == "text" for part in parts)
        ):
            turn = {**turn, "content": "\n".join(part.get("text", "") for part in parts)}
        plain.append(turn)
    return {**row, "messages": plain}


def _sharegpt(source: Source, line: int, row: Json, reading: Reading) -> Content:
    system = row.get("system")
    messages = []
    for number, turn in enumerate(row["conversations"]):
        speaker = turn.get("from") if isinstance(turn, dict) else None
        if speaker not in SHAREGPT:
            raise Invalid(
                f"{source.uri}: line {line}: conversations.{number}.from is {speaker!r}; known are {', '.join(SHAREGPT)}"
            )
        if not isinstance(turn.get("value"), str):
            raise Invalid(f"{source.uri}: line {line}: conversations.{number}.value must be a text")
        if SHAREGPT[speaker] == "system":
            system = turn["value"]
        else:
            messages.append(Message(SHAREGPT[speaker], turn["value"]))
    if not messages or messages[-1].role != "assistant":
        raise Invalid(f"{source.uri}: line {line}: the conversation does not end with an answer")
    return Conversation(tuple(messages), system or reading.system or None)


def _pair(source: Source, line: int, row: Json, reading: Reading) -> Content:
    prompt = reading.prompt or next((name for name in PROMPTS if name in row), "")
    answer = reading.answer or next((name for name in ANSWERS if name in row and name != prompt), "")
    for wanted, name in (("prompt", prompt), ("answer", answer)):
        if name not in row:
            found = ", ".join(map(str, list(row)[:12]))
            raise Invalid(
                f"{source.uri}: line {line}: no {wanted} under {name!r}; there are {found}. Say where it is with --{wanted}"
            )
    if row[prompt] is None or row[answer] is None:
        raise Invalid(f"{source.uri}: line {line}: {prompt if row[prompt] is None else answer} is null")
    said = row[answer] if isinstance(row[answer], str) else msgspec.json.encode(row[answer]).decode()
    own = row.get("system")
    return Conversation.of(str(row[prompt]), said, system=(own if isinstance(own, str) else reading.system) or None)


Writer = Callable[[Content], Json | str]


def _as_pair(content: Content) -> Json | str:
    if not isinstance(content, Conversation) or len(content.messages) != 2 or content.system is not None:
        return "has a system prompt or more than one exchange; prompt/completion holds one question and one answer"
    return {"prompt": content.messages[0].text, "completion": content.messages[1].text}


def _as_chat(content: Content) -> Json | str:
    if not isinstance(content, Conversation):
        return "is plain text and has no messages"
    head = {"system": content.system} if content.system is not None else {}
    return {**head, "messages": [{"role": one.role, "content": one.text} for one in content.messages]}


def _as_bedrock(content: Content) -> Json | str:
    if not isinstance(content, Conversation):
        return "is plain text and has no messages"
    head = {"system": [{"text": content.system}]} if content.system is not None else {}
    turns = [{"role": one.role, "content": [{"text": one.text}]} for one in content.messages]
    return {"schemaVersion": SCHEMA, **head, "messages": turns}


def _as_openai(content: Content) -> Json | str:
    if not isinstance(content, Conversation):
        return "is plain text and has no messages"
    head = [{"role": "system", "content": content.system}] if content.system is not None else []
    return {"messages": [*head, *({"role": one.role, "content": one.text} for one in content.messages)]}


def _as_text(content: Content) -> Json | str:
    if isinstance(content, Conversation):
        return {"input": "\n\n".join(filter(None, [content.system, *(one.text for one in content.messages)]))}
    return {"input": content}


def _as_evaluation(content: Content) -> Json | str:
    pair = _as_pair(content)
    return pair if isinstance(pair, str) else {"prompt": pair["prompt"], "referenceResponse": pair["completion"]}


WRITERS: dict[str, Writer] = {
    PAIRS.name: _as_pair, "messages": _as_chat, SCHEMA: _as_bedrock, "openai": _as_openai, TEXT.name: _as_text,
    "evaluation": _as_evaluation,
}  # fmt: skip
NAMES = {PAIRS: PAIRS.name, CHAT: "messages", BEDROCK_CHAT: SCHEMA, TEXT: TEXT.name}


def written(form: str, content: Content, where: str) -> bytes:
    """A row in a form of WRITERS, as a line. Raises Invalid, which begins with `where`, when the form cannot hold it."""
    row = WRITERS[form](content)
    if isinstance(row, str):
        raise Invalid(f"{where} {row}; choose another form")
    return msgspec.json.encode(row) + b"\n"


def convert(source: Source, target: Path, form: str, reading: Reading | None = None) -> int:
    """Write a file's rows in a form of WRITERS; how many. Raises Invalid, and then writes nothing."""
    check_form(form)
    unfinished = target.with_name(target.name + ".unfinished")
    count = 0
    try:
        with unfinished.open("wb") as file:
            for line, content, _ in read_any(source, reading):
                file.write(written(form, content, f"{source.uri}: line {line}"))
                count += 1
        if not count:
            raise Invalid(f"{source.uri}: there are no rows")
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def check_form(form: str) -> None:
    """Raise Invalid for a form that cannot be written."""
    if form not in WRITERS:
        raise Invalid(f"the form {form!r} is not known; known are {', '.join(WRITERS)}")
