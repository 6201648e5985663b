"""What a teacher is to answer: the prompts of a file, or of logged calls; and what of them is not taken, with the reason."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from outcrop.datasets.formats import BEDROCK_CHAT, CHAT, PAIRS, SCHEMA, Problem, read_row
from outcrop.datasets.kinds import FAILS, KINDS
from outcrop.datasets.likeness import plain
from outcrop.datasets.source import Source, read_lines
from outcrop.logs import Filter, Logged
from outcrop.rendering import Conversation, Message
from outcrop.synthesis.exchanges import Exchange, exchange_of, same_model

MADE = "made by the teacher"
# So many golden pairs, the shortest, are shown to a teacher before what it is asked.
MOST_EXAMPLES = 3


class Prompt(msgspec.Struct, frozen=True):
    """What is asked, and what is known of it: a golden answer that came with it, or the answer that was logged."""

    number: int
    asked: Conversation
    place: str
    golden: str | None = None
    logged: str | None = None
    request_id: str = ""


class Rejected(msgspec.Struct, frozen=True):
    """What was not taken, and why."""

    place: str
    reason: str
    request_id: str = ""
    status: Literal["rejected"] = "rejected"


def read_prompts(source: Source) -> Iterator[Prompt | Rejected]:
    """The prompts of a distillation's file, in Bedrock's form: one user turn of one text, and maybe the golden answer.

    Rows of prompt and completion, and of system and messages, are taken, too. Not taken is what Bedrock does not take, and a prompt
    that came before.
    """
    seen: set[str] = set()
    for number, line in read_lines(source):
        place = f"line {number}"
        read = _prompt_of(number, line)
        if isinstance(read, str):
            yield Rejected(place, read)
            continue
        asked, golden = read
        if _is_old(asked, seen):
            yield Rejected(place, "the same prompt came before")
            continue
        yield Prompt(number, asked, place, golden)


def _prompt_of(number: int, line: bytes) -> tuple[Conversation, str | None] | str:
    try:
        row = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"is not a JSON object: {error}"
    turns = row.get("messages")
    if isinstance(turns, list) and len(turns) > 2:
        return f"has {len(turns)} messages; a prompt is one user turn, and maybe the golden answer"
    # The forms of training data end with an answer; a prompt that has none is read with one.
    completed = dict(row)
    is_bedrock = "schemaVersion" in row or (
        isinstance(turns, list) and turns and isinstance(turns[0], dict) and isinstance(turns[0].get("content"), list)
    )
    has_golden = bool(row.get("completion")) if turns is None else len(turns or ()) == 2
    if turns is None:
        form = PAIRS
        completed["completion"] = row.get("completion") or MADE
    elif is_bedrock:
        form = BEDROCK_CHAT
        if row.get("schemaVersion") != SCHEMA:
            return _first(
                read_row(number, line, form)[1], f"schemaVersion is {row.get('schemaVersion')!r}; it must be {SCHEMA!r}"
            )
        for index, turn in enumerate(turns):
            if isinstance(turn, dict) and isinstance(turn.get("content"), list) and len(turn["content"]) != 1:
                return f"messages.{index}.content has {len(turn['content'])} parts; it must have exactly one text"
    else:
        form = CHAT
    if isinstance(turns, list) and not has_golden:
        made = [{"text": MADE}] if is_bedrock else MADE
        completed["messages"] = [*turns, {"role": "assistant", "content": made}]
    content, problems = read_row(number, msgspec.json.encode(completed), form)
    failing = [problem for problem in problems if KINDS[problem.kind].severity == FAILS]
    if failing or not isinstance(content, Conversation):
        return _first(failing, "holds no conversation")
    golden = content.messages[-1].text if has_golden else None
    return Conversation(content.messages[:-1], content.system), golden


def _first(problems: Sequence[Problem], otherwise: str) -> str:
    failing = [problem for problem in problems if KINDS[problem.kind].severity == FAILS]
    return f"{failing[0].field} {failing[0].message}".strip() if failing else otherwise


def read_exchanges(
    logged: Iterable[Logged | str], wanted: Filter, teacher: str = "", takes_turns: bool = False
) -> Iterator[Prompt | Rejected]:
    """The prompts of logged calls whose metadata is `wanted`, with what was answered.

    With a `teacher` only its own answers, whole ones, are taken; without one answers are passed over. Conversations of several turns
    are taken where `takes_turns`. Calls whose metadata is not wanted are neither taken nor rejected.
    """
    seen: set[str] = set()
    number = 0
    for call in logged:
        if isinstance(call, str):
            yield Rejected("", call)
            continue
        if not wanted(call.metadata):
            continue
        number += 1
        read = exchange_of(call)
        reason = read if isinstance(read, str) else _why_not(read, teacher, takes_turns)
        if not reason and isinstance(read, Exchange) and _is_old(read.asked, seen):
            reason = "the same prompt came before"
        if reason or isinstance(read, str):
            yield Rejected(call.place, reason, call.request_id)
        else:
            yield Prompt(
                number, read.asked, read.place, logged=read.answer if teacher else None, request_id=read.request_id
            )


def _why_not(read: Exchange, teacher: str, takes_turns: bool) -> str:
    if len(read.asked.messages) > 1 and not takes_turns:
        return f"has {len(read.asked.messages)} messages; a prompt is one user turn"
    if not teacher:
        return ""
    if not same_model(read.model, teacher):
        return f"was answered by {read.model}, not by the teacher {teacher}"
    if not (read.answer or "").strip():
        return "the answer is empty, or was not logged"
    return "the answer was cut at its limit" if read.is_cut else ""


def _is_old(asked: Conversation, seen: set[str]) -> bool:
    key = plain("\x1f".join([asked.system or "", *(message.text for message in asked.messages)]))
    if key in seen:
        return True
    seen.add(key)
    return False


def examples_of(prompts: Sequence[Prompt], most_characters: int) -> list[Prompt]:
    """Golden pairs to show to a teacher: the shortest ones, as many as fit."""
    golden = sorted((one for one in prompts if one.golden), key=lambda one: (_size(one), one.number))
    chosen: list[Prompt] = []
    for one in golden[:MOST_EXAMPLES]:
        if sum(map(_size, chosen)) + _size(one) <= most_characters:
            chosen.append(one)
    return chosen


def _size(prompt: Prompt) -> int:
    return sum(len(message.text) for message in prompt.asked.messages) + len(prompt.golden or "")


def with_examples(prompt: Prompt, examples: Sequence[Prompt]) -> Conversation:
    """What the teacher is asked: the golden pairs of others as turns before it."""
    turns: list[Message] = []
    for one in examples:
        if one.number != prompt.number and one.asked.system == prompt.asked.system:
            turns += [*one.asked.messages, Message("assistant", one.golden or "")]
    return Conversation((*turns, *prompt.asked.messages), prompt.asked.system)
