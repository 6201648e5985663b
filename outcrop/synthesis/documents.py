"""Documents as text, and text in passages that a question can be asked about.

PDF, DOCX and HTML need the `documents` extra. A JSONL file is many documents: a line with `text`, and `path` or `id` for its name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from outcrop.datasets.source import Source, read_lines
from outcrop.errors import Invalid

TEXT = (".txt", ".md", ".markdown", ".rst")
ENDINGS = (*TEXT, ".pdf", ".docx", ".html", ".htm", ".jsonl")
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$", re.MULTILINE)
# A passage is about so long (characters), and never much longer than a question needs; shorter ones are joined.
PASSAGE, SHORTEST = 1200, 200


@dataclass(frozen=True)
class Document:
    """A text and its name; `title` is its first heading, where it has one."""

    uri: str
    title: str
    text: str


@dataclass(frozen=True)
class Passage:
    """A piece of a document: where it begins (characters), under which heading, and its text."""

    document: str
    title: str
    heading: str
    begin: int
    text: str


def read_documents(sources: list[Source]) -> Iterator[Document]:
    """The documents of some files. Raises Invalid for a file that cannot be read, and for an ending that is not known."""
    for source in sources:
        ending = Path(source.uri).suffix.lower()
        if ending == ".jsonl":
            yield from _lines(source)
        elif ending in TEXT:
            yield _document(source.uri, source.path.read_text(encoding="utf-8", errors="replace"))
        elif ending in READERS:
            try:
                yield _document(source.uri, READERS[ending](source.path))
            except ImportError as error:
                raise Invalid(
                    f"{source.uri}: reading it needs {error.name}; pip install 'outcrop[documents]'"
                ) from None
        else:
            raise Invalid(f"{source.uri}: the ending {ending!r} is not known; known are {', '.join(ENDINGS)}")


def _document(uri: str, text: str) -> Document:
    text = FRONT_MATTER.sub("", text.replace("\r\n", "\n"))
    heading = HEADING.search(text)
    return Document(uri, heading.group(2) if heading else "", text.strip())


def _lines(source: Source) -> Iterator[Document]:
    for number, line in read_lines(source):
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
            text = row["text"]
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
            raise Invalid(f"{source.uri}: line {number} is no document; it needs the key text") from None
        name = row.get("path") or row.get("uri") or row.get("id") or number
        yield _document(f"{source.uri}#{name}", str(text))


def _pdf(path: Path) -> str:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, PyPdfError

    try:
        return "\n\n".join(page.extract_text() for page in PdfReader(path).pages)
    except (PyPdfError, DependencyError) as error:
        raise Invalid(f"{path.name} is no readable PDF: {error}") from None


def _docx(path: Path) -> str:
    import docx
    from docx.opc.exceptions import PackageNotFoundError

    try:
        read = docx.Document(str(path))
    except (PackageNotFoundError, KeyError, ValueError) as error:
        raise Invalid(f"{path.name} is no readable DOCX: {error}") from None
    parts = []
    for paragraph in read.paragraphs:
        level = re.fullmatch(r"Heading (\d)", paragraph.style.name if paragraph.style is not None else "")
        parts.append(f"{'#' * int(level.group(1))} {paragraph.text}" if level else paragraph.text)
    for table in read.tables:
        parts += [" | ".join(cell.text for cell in row.cells) for row in table.rows]
    return "\n\n".join(part for part in parts if part.strip())


def _html(path: Path) -> str:
    from bs4 import BeautifulSoup

    page = BeautifulSoup(path.read_bytes(), "html.parser")
    for junk in page(["script", "style", "nav", "header", "footer", "noscript", "template"]):
        junk.decompose()
    for heading in page(re.compile(r"h[1-6]")):
        heading.insert_before("\n\n")
        heading.string = f"{'#' * int(heading.name[1])} {heading.get_text(' ', strip=True)}"
        heading.insert_after("\n\n")
    for block in page(["p", "li", "tr", "div", "section", "br"]):
        block.insert_after("\n\n" if block.name in ("p", "div", "section") else "\n")
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+", " ", page.get_text()))


READERS = {".pdf": _pdf, ".docx": _docx, ".html": _html, ".htm": _html}


def passages_of(document: Document, size: int = PASSAGE) -> Iterator[Passage]:
    """A document in passages of about `size` characters, parted at headings and paragraphs, never within a sentence.

    Each character of the text is in one passage at most; headings and white space between passages are in none.
    """
    heads = [(match.start(), match.end(), match.group(2)) for match in HEADING.finditer(document.text)]
    begins = [(0, ""), *((end, title) for _, end, title in heads)]
    ends = [*(start for start, _, _ in heads), len(document.text)]
    sections = [(begin, end, title) for (begin, title), end in zip(begins, ends, strict=True)]
    for begin, end, title in sections:
        for left, right in _pieces(document.text, begin, end, size):
            piece = document.text[left:right]
            if piece.strip():
                begin_of_text = left + len(piece) - len(piece.lstrip())
                yield Passage(document.uri, document.title, title, begin_of_text, piece.strip())


def _pieces(text: str, begin: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """A section's spans: paragraphs joined up to `size`, long ones parted after sentences."""
    borders = [begin, *(begin + match.end() for match in re.finditer(r"\n\s*\n", text[begin:end])), end]
    units: list[tuple[int, int]] = []
    for left, right in pairwise(borders):
        if right - left > size:
            stops = [left + match.end() for match in re.finditer(r"[.!?][\"')\]]?\s+", text[left:right])]
            units += list(zip([left, *stops], [*stops, right], strict=True))
        else:
            units.append((left, right))
    start = begin
    for number, (_, right) in enumerate(units):
        following = units[number + 1][1] if number + 1 < len(units) else None
        if following is None or (following - start > size and right - start >= SHORTEST):
            yield start, right
            start = right
