"""A stretch of a file, read once: what is wrong in its lines, and what is kept of each row to be compared with others.

A stretch is all that a process looks at. It holds a block of lines at a time; what must be known of all rows in the end (hashes,
signatures, where they begin) goes to files, 76 bytes a row.
"""

import hashlib
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from outcrop.datasets.families import FAMILIES, Family
from outcrop.datasets.formats import (
    BEDROCK_CHAT,
    CHAT,
    DOCUMENTS,
    FORMATS,
    PAIRS,
    Content,
    Format,
    Problem,
    detect,
    read_row,
)
from outcrop.datasets.kinds import FAILS, KINDS
from outcrop.datasets.language import language_of
from outcrop.datasets.likeness import BANDS, BLOCK, plain, signatures
from outcrop.datasets.personal import search, suspects
from outcrop.datasets.source import DOCUMENT_END, MOST_LINE_BYTES, Source, read_documents
from outcrop.errors import Invalid
from outcrop.rendering import Conversation, Renderer

# Findings of a kind that a check keeps when it is not said otherwise.
KEPT = 10_000
# An answer of at most so many characters may be a label, and so many different ones are counted.
LABEL_CHARS, MOST_LABELS = 64, 2000
# One row in so many is asked for its language, 2,000 of a stretch at most.
LANGUAGE_EVERY, MOST_LANGUAGES = 7, 2000
RENDERED_AT_ONCE = 32
# Words whose tokens are remembered.
MOST_WORDS = 300_000
COLUMNS = {
    "line": "<i8", "offset": "<i8", "size": "<i4", "prompt": "<u8", "turns": "<u8", "answer": "<u8",
    **{f"band{number}": "<u4" for number in range(BANDS)},
}  # fmt: skip


@dataclass(frozen=True)
class Stretch:
    """What one process is to look at. `base` is a folder with a tokenizer; `begin` and `end` are at the starts of lines."""

    source: Source
    begin: int
    end: int
    form: str
    allowed: tuple[str, ...]
    columns: Path
    base: Path | None = None
    most_tokens: int = 0
    family: str = ""
    file: int = 0
    kept: int = KEPT
    """Findings of a kind that are kept; the rest is counted."""

    @cached_property
    def rules(self) -> Family | None:
        """The family's rules, if one was named."""
        return FAMILIES.get(self.family)


@dataclass
class Scanned:
    """What was found; lines are counted from the stretch's first one, which is 1."""

    kept: int = KEPT
    lines: int = 0
    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] | None = field(default_factory=Counter)
    systems: int = 0
    may_have_systems: bool = False
    languages: list[tuple[int, str, str]] = field(default_factory=list)
    """(line, the prompt's, the answer's) of some rows."""

    @property
    def failing(self) -> int:
        """How many findings a job would fail with."""
        return sum(count for kind, count in self.counts.items() if KINDS[kind].severity == FAILS)

    def add(self, problem: Problem) -> None:
        """Count a finding, and keep it while there is room for its kind."""
        self.counts[problem.kind] += 1
        if self.counts[problem.kind] <= self.kept:
            self.problems.append(problem)


def lines_of(path: Path, begin: int, end: int) -> Iterator[tuple[int, list[bytes]]]:
    """Blocks of whole lines, with their ends, and each block's offset. A line that is too long comes as its first bytes."""
    with path.open("rb") as file:
        file.seek(begin)
        offset, carry, skips = begin, b"", False
        while file.tell() < end:
            data = file.read(min(BLOCK, end - file.tell()))
            if skips:  # the rest of a line whose beginning was given
                place = data.find(b"\n")
                if place < 0:
                    offset += len(data)
                    continue
                data, offset, skips = data[place + 1 :], offset + place + 1, False
            data = carry + data
            cut = data.rfind(b"\n") + 1
            if cut:
                yield offset, data[:cut].splitlines(keepends=True) if b"\r" not in data else _split(data[:cut])
                offset += cut
            carry = data[cut:]
            if len(carry) > MOST_LINE_BYTES:
                yield offset, [carry[: MOST_LINE_BYTES + 1]]
                offset, carry, skips = offset + len(carry), b"", True
        if carry:
            yield offset, [carry]


def _split(data: bytes) -> list[bytes]:
    """At line feeds alone: a carriage return within a line ends none."""
    return [line + b"\n" for line in data[:-1].split(b"\n")]


def scan(stretch: Stretch) -> Scanned:
    """Look at every line of a stretch."""
    return _Scanner(stretch).run()


class _Scanner:
    def __init__(self, stretch: Stretch) -> None:
        self._stretch, self._found = stretch, Scanned(stretch.kept)
        self._form: Format | None = FORMATS.get(stretch.form)
        self._allowed = tuple(FORMATS[name] for name in stretch.allowed)
        self._renderer = Renderer(stretch.base) if stretch.base is not None else None
        self._long: list[tuple[int, Content]] = []
        self._words: dict[str, int] = {}
        stretch.columns.mkdir(parents=True, exist_ok=True)
        self._files = {name: (stretch.columns / name).open("wb") for name in COLUMNS}

    def run(self) -> Scanned:
        blocks = self._documents() if self._form is DOCUMENTS else self._lines()
        for numbers, offsets, lines in blocks:
            self._block(numbers, offsets, lines)
        self._render()
        for file in self._files.values():
            file.close()
        return self._found

    def _lines(self) -> Iterator[tuple[list[int], list[int], list[bytes]]]:
        """Lines that are not blank, in blocks, with their numbers and offsets."""
        for offset, lines in lines_of(self._stretch.source.path, self._stretch.begin, self._stretch.end):
            numbers, offsets, kept = [], [], []
            for line in lines:
                self._found.lines += 1
                at, offset = offset, offset + len(line)
                if at == 0 and line.startswith(b"\xef\xbb\xbf"):
                    line, at = line[3:], 3
                if not line.isspace():
                    numbers.append(self._found.lines)
                    offsets.append(at)
                    kept.append(line)
            yield numbers, offsets, kept

    def _documents(self) -> Iterator[tuple[list[int], list[int], list[bytes]]]:
        for number, offset, document in read_documents(self._stretch.source):
            yield [number], [offset], [document]

    def _block(self, numbers: list[int], offsets: list[int], lines: list[bytes]) -> None:
        if not lines:
            return
        hashes = bytearray()
        is_row = np.zeros(len(lines), bool)
        block = b"".join(lines)
        starts = np.concatenate([[0], np.cumsum([len(line) for line in lines])])
        is_text = _is_utf8(block)  # decoders pass over bytes that they do not need
        asked = {bisect_right(starts, place) - 1 for place in suspects(block)}
        for index, (number, line) in enumerate(zip(numbers, lines, strict=True)):
            said = self._quick(line) if is_text else None
            content: Content | None = None
            if said is None:
                content = self._row(number, line, is_text or _is_utf8(line))
                if content is None:
                    continue
                said = said_of(content)
            is_row[index] = True
            hashes += self._keep(number, line, said)
            if index in asked:
                self._search(number, line, content if content is not None else self._content(line))
        if not is_row.any():
            return
        self._write("line", np.asarray(numbers)[is_row])
        self._write("offset", np.asarray(offsets)[is_row])
        self._write("size", np.diff(starts)[is_row])
        for name, values in zip(
            ("prompt", "turns", "answer"), np.frombuffer(hashes, "<u8").reshape(-1, 3).T, strict=True
        ):
            self._write(name, values)
        for number, keys in enumerate(signatures(block, starts[:-1])[is_row].T):
            self._write(f"band{number}", keys)

    def _write(self, name: str, values: np.ndarray) -> None:
        self._files[name].write(np.ascontiguousarray(values.astype(COLUMNS[name], copy=False)).data)

    def _quick(self, line: bytes) -> "Said | None":
        """What an ordinary row of the commonest forms says; None for any other, which is then read in full."""
        if self._stretch.rules is not None or len(line) > MOST_LINE_BYTES:
            return None
        try:
            if self._form is PAIRS:
                pair = PAIRS.decoder.decode(line)
                said = Said(None, pair.prompt, pair.completion, 2)
            elif self._form is CHAT:
                chat = CHAT.decoder.decode(line)
                asked, answered = chat.messages
                if (asked.role, answered.role) != ("user", "assistant") or b"Human:" in line or b"Assistant:" in line:
                    return None
                said = Said(chat.system, asked.content, answered.content, 2)
            else:
                return None
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        if not said.turns or not said.answer or said.turns.isspace() or said.answer.isspace() or said.system == "":
            return None
        if said.system is not None and said.system.isspace():
            return None
        self._found.rows += 1
        return said

    def _content(self, line: bytes) -> Content:
        """The content of a row that was found to be right."""
        assert self._form is not None
        content = read_row(1, line, self._form)[0]
        assert content is not None
        return content

    def _row(self, number: int, line: bytes, is_text: bool) -> Content | None:
        """A line's content, or None when it has none that could be learned."""
        found = self._found
        found.rows += 1
        if len(line) > MOST_LINE_BYTES:
            remedy = f"; part the document by lines of {DOCUMENT_END.decode()}" if self._form is DOCUMENTS else ""
            found.add(Problem(number, "", f"has more than {MOST_LINE_BYTES:,} bytes{remedy}", kind="overlong"))
            return None
        if not is_text:
            found.add(_not_utf8(number, line))
            return None
        if self._form is None:
            wanted = detect(line, self._allowed)
            if isinstance(wanted, Format):
                self._form = wanted
            elif wanted:
                found.add(Problem(number, "", wanted))
                return None
        form = self._form or self._allowed[-1]
        content, problems = read_row(number, line, form)
        if content is not None and all(KINDS[problem.kind].severity != FAILS for problem in problems):
            for problem in problems:
                found.add(problem)
            if self._stretch.rules is not None:
                self._ask_family(number, line, problems, content, self._stretch.rules)
            return content
        if self._form is not None and form is not DOCUMENTS:
            other = detect(line, self._allowed)
            if isinstance(other, Format) and other is not form:
                problems = [Problem(number, "", f"is in the form {other.name}, but the file began as {form.name}")]
            elif isinstance(other, str) and other:
                problems = [Problem(number, "", other)]
        for problem in problems:
            found.add(problem)
        return None

    def _ask_family(self, number: int, line: bytes, problems: list[Problem], content: Content, rules: Family) -> None:
        """What AWS would refuse of a row that a job here takes."""
        for kind, place, message in rules.problems_of(content):
            self._found.add(Problem(number, place, message, kind=kind))
        if rules.schema_is_fixed:
            for problem in problems:
                self._found.add(msgspec.structs.replace(problem, kind="limit"))
        if self._form is CHAT and msgspec.json.decode(line)["messages"][0]["role"] not in ("user", "assistant"):
            message = f"is a system prompt as a message; {rules.name} takes it as the key system"
            self._found.add(Problem(number, "messages.0.role", message, kind="limit"))

    def _keep(self, number: int, line: bytes, said: "Said") -> bytes:
        """Take note of a row; the hashes of its prompt, of that without its system prompt, and of its answer."""
        found = self._found
        system, turns, answer, messages = said
        if messages:
            found.systems += system is not None
            found.may_have_systems |= self._form is CHAT or self._form is BEDROCK_CHAT
            labels = found.labels
            if labels is not None:
                labels[answer if len(answer) <= LABEL_CHARS else ""] += 1
                if len(labels) > MOST_LABELS:
                    found.labels = None
            if answer[:1].isspace() or answer[-1:].isspace():
                place = "completion" if self._form is PAIRS else f"messages.{messages - 1}.content"
                found.add(Problem(number, place, "begins or ends in white space", kind="answer-space"))
            # A token is a byte at least, and a line of JSON is no shorter than what it says.
            if self._renderer is not None and len(line) * self._widest > self._stretch.most_tokens - self._frame(
                messages
            ):
                if self._estimate((system or "", turns, answer)) > self._stretch.most_tokens - self._frame(messages):
                    self._long.append((number, self._content(line)))
                if len(self._long) >= RENDERED_AT_ONCE:
                    self._render()
        if found.rows % LANGUAGE_EVERY == 1 and len(found.languages) < MOST_LANGUAGES:
            found.languages.append((number, language_of(turns.rpartition("\x1f")[2]), language_of(answer)))
        asked = _hash(turns)
        return (asked if system is None else _hash(f"{system}\x1e{turns}")) + asked + _hash(answer)

    def _estimate(self, texts: tuple[str, ...]) -> float:
        """A row's tokens, a tenth more than what its words have by themselves.

        Tokenizers that part a text into words first, as nearly all do, count the same but for odd white space; what the others would
        count is not known so, and infinite. Words are counted once: an ordinary text takes a tenth of the time of its tokens.
        """
        assert self._renderer is not None
        tokenizer, known = self._renderer.tokenizer, self._words
        if tokenizer.pre_tokenizer is None or tokenizer.normalizer is not None:
            return math.inf
        total = 0
        for text in texts:
            words = text.split(" ")
            new = [word for word in set(words) if word not in known]
            if new:
                if len(known) > MOST_WORDS:
                    known.clear()
                    new = list(set(words))
                encoded = tokenizer.encode_batch_fast([f" {word}" for word in new], add_special_tokens=False)
                known.update(zip(new, (len(one.ids) for one in encoded), strict=True))
            total += sum(map(known.__getitem__, words))
        return 1.1 * total

    @cached_property
    def _widest(self) -> int:
        """A byte is a token at most, but for tokenizers that rewrite characters before they cut (Unicode's compatible forms
        write one of three bytes with up to 33)."""
        assert self._renderer is not None
        return 1 if self._renderer.tokenizer.normalizer is None else 11

    def _frame(self, messages: int) -> int:
        """Tokens of a template around so many messages, and one for each border at which a word may be cut."""
        return self._frames[0] + self._frames[1] * messages

    @cached_property
    def _frames(self) -> tuple[int, int]:
        assert self._renderer is not None
        short, long = (
            len(self._renderer.training_row(Conversation.of(*["a"] * count, system="a")).tokens) for count in (2, 4)
        )
        return short, (long - short) // 2 + 1

    def _render(self) -> None:
        """Count the tokens of rows that may be too long."""
        if self._renderer is None or not self._long:
            return
        most = self._stretch.most_tokens
        rendered = self._renderer.training_rows([content for _, content in self._long])
        for (number, _), row in zip(self._long, rendered, strict=True):
            if isinstance(row, Invalid):
                self._found.add(Problem(number, "", row.message, kind="unlearnable"))
            elif len(row.tokens) > most:
                message = f"has {len(row.tokens):,} tokens; at most {most:,} fit (maxTokens)"
                self._found.add(Problem(number, "", message, kind="overlong"))
        self._long = []

    def _search(self, number: int, line: bytes, content: Content) -> None:
        """Personal data and secrets of a row."""
        for place, text in texts_of(content, self._form):
            for found in search(text):
                at = line.find(found.text.encode())
                article = "an" if found.name[0] in "AIe" else "a"
                said = f"holds what looks like {article} {found.name}: {found.masked}"
                self._found.add(Problem(number, place, said, at + 1 if at >= 0 else None, found.kind))


class Said(NamedTuple):
    """What a row says, and in how many messages; 0 for plain text."""

    system: str | None
    turns: str
    answer: str
    messages: int


def said_of(content: Content) -> Said:
    """A row in these terms; turns are parted by a mark that no text has."""
    if isinstance(content, str):
        return Said(None, content, "", 0)
    turns = "\x1f".join(message.text for message in content.messages[:-1])
    return Said(content.system, turns, content.messages[-1].text, len(content.messages))


def texts_of(content: Content, form: Format | None) -> Iterator[tuple[str, str]]:
    """(field, text) of everything that a row says."""
    if isinstance(content, str):
        yield "input" if form is not DOCUMENTS else "", content
    elif form is PAIRS:
        yield "prompt", content.messages[0].text
        yield "completion", content.messages[1].text
    else:
        if content.system is not None:
            yield "system", content.system
        for number, message in enumerate(content.messages):
            yield f"messages.{number}.content", message.text


def _not_utf8(number: int, data: bytes) -> Problem:
    """Where a line, or a document that begins on that line, ceases to be UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = error.start - before.rfind(b"\n")
        return Problem(number + before.count(b"\n"), "", f"is not UTF-8: {error.reason}", column, "json")
    raise AssertionError("it is UTF-8")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _hash(text: str) -> bytes:
    return hashlib.blake2b(plain(text).encode("utf-8", "surrogatepass"), digest_size=8).digest()


@dataclass(frozen=True)
class Columns:
    """What was kept of all rows of all files of a check, in one order; `file` says whose each is."""

    folders: list[tuple[int, Path, int]]
    """(file, folder, lines before the stretch)"""

    def read(self, name: str) -> np.ndarray:
        """One value for each row."""
        parts = []
        for _, folder, lines_before in self.folders:
            values = np.fromfile(folder / name, COLUMNS[name])
            parts.append(values + lines_before if name == "line" else values)
        return np.concatenate(parts) if parts else np.zeros(0, COLUMNS[name])

    def take(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The values of some rows; of the others a folder's at a time are in memory."""
        taken = np.zeros(len(rows), COLUMNS[name])
        for begin, end, folder, lines_before in self._spans:
            here = (rows >= begin) & (rows < end)
            if here.any():
                values = np.fromfile(folder / name, COLUMNS[name])[rows[here] - begin]
                taken[here] = values + lines_before if name == "line" else values
        return taken

    @cached_property
    def _spans(self) -> list[tuple[int, int, Path, int]]:
        """Where each folder's rows begin and end among all, and the lines before them."""
        spans, begin = [], 0
        for _, folder, lines_before in self.folders:
            end = begin + (folder / "line").stat().st_size // 8
            spans.append((begin, end, folder, lines_before))
            begin = end
        return spans

    def files(self) -> np.ndarray:
        """The file of each row."""
        sizes = [((folder / "line").stat().st_size // 8, file) for file, folder, _ in self.folders]
        return (
            np.concatenate([np.full(size, file, np.int16) for size, file in sizes]) if sizes else np.zeros(0, np.int16)
        )
