"""A file of training data -> what is in it, or all that is wrong with it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from outcrop.datasets.formats import DOCUMENTS, TEXT, Content, Format, Problem, detect, read_row
from outcrop.datasets.source import (
    DOCUMENT_END,
    MOST_LINE_BYTES,
    PLAIN_TEXT_ENDINGS,
    Source,
    read_documents,
    read_lines,
)
from outcrop.errors import Invalid

# So many problems are kept to be shown; the rest is counted.
SHOWN = 100
# Bedrock's failureMessage holds at most 2,048 characters.
MOST_MESSAGE = 2000


@dataclass
class Report:
    """What a check found."""

    source: Source
    format: Format | None = None
    rows: int = 0
    sha256: str = ""
    problems: list[Problem] = field(default_factory=list)
    num_problems: int = 0

    def add(self, problem: Problem) -> None:
        """Count a problem, and keep it while there is room."""
        self.num_problems += 1
        if len(self.problems) < SHOWN:
            self.problems.append(problem)

    def refusal(self) -> str:
        """All problems in one message that fits Bedrock's failureMessage."""
        head = f"{self.source.uri}: {self.num_problems} problem{'s' if self.num_problems != 1 else ''} in {self.rows} rows. "
        text = head
        for shown, problem in enumerate(self.problems):
            line = f"{problem}. "
            if len(text) + len(line) > MOST_MESSAGE - 40:
                return f"{text}And {self.num_problems - shown} more."
            text += line
        return text.strip()


def check(source: Source, allowed: tuple[Format, ...], *, fewest: int, most: int, most_bytes: int) -> Report:
    """Read every line and report on it. Stops early only when there are more rows than `most`.

    Raises Invalid when anything is wrong: one message with every problem, by line and field.
    """
    if source.size > most_bytes:
        raise Invalid(f"{source.uri}: the file has {source.size:,} bytes; at most {most_bytes:,} are allowed")
    report = Report(source)
    if TEXT in allowed and source.uri.endswith(PLAIN_TEXT_ENDINGS):
        report.format = DOCUMENTS
    digest = hashlib.sha256()
    for number, line in _units(report):
        report.rows += 1
        if report.rows > most:
            raise Invalid(
                f"{source.uri}: there are more than {most:,} rows; split the file, or raise the limit in the settings"
            )
        digest.update(
            line if report.format is not DOCUMENTS else b"%d:" % len(line) + line
        )  # where documents end counts
        _check_line(report, number, line, allowed)
    if report.rows == 0:
        raise Invalid(f"{source.uri}: the file is empty; it must hold at least {fewest} row{'s' * (fewest != 1)}")
    if report.num_problems:
        raise Invalid(report.refusal())
    if report.rows < fewest:
        raise Invalid(
            f"{source.uri}: there {'is' if report.rows == 1 else 'are'} {report.rows} row{'s' * (report.rows != 1)}; at least {fewest} are needed"
        )
    report.sha256 = digest.hexdigest()
    return report


def _check_line(report: Report, number: int, line: bytes, allowed: tuple[Format, ...]) -> None:
    if len(line) > MOST_LINE_BYTES:
        remedy = f"; part the document by lines of {DOCUMENT_END.decode()}" if report.format is DOCUMENTS else ""
        report.add(Problem(number, "", f"has more than {MOST_LINE_BYTES:,} bytes{remedy}"))
        return
    if report.format is None:
        found = detect(line, allowed)
        if isinstance(found, Format):
            report.format = found
        elif found:
            report.add(Problem(number, "", found))
            return
    _, problems = read_row(number, line, report.format or allowed[-1])
    if problems and report.format is not None and report.format is not DOCUMENTS:
        other = detect(line, allowed)
        if isinstance(other, Format) and other is not report.format:
            problems = [Problem(number, "", f"is in the form {other.name}, but the file began as {report.format.name}")]
    for problem in problems:
        report.add(problem)


def _units(report: Report) -> Iterator[tuple[int, bytes]]:
    """What becomes a row each, with its first line's number."""
    return read_documents(report.source) if report.format is DOCUMENTS else read_lines(report.source)


def contents(report: Report) -> Iterator[tuple[int, Content]]:
    """Line number and content of every row of a file that passed the check."""
    assert report.format is not None
    for number, line in _units(report):
        content, _ = read_row(number, line, report.format)
        assert content is not None, f"{report.source.uri} changed after it was checked"
        yield number, content
