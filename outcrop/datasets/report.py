"""What a check found of one file, and the file's rows after it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from outcrop.datasets.formats import DOCUMENTS, Content, Format, Problem, read_row
from outcrop.datasets.source import Source, read_documents, read_lines

# So many problems are kept to be shown; the rest is counted.
SHOWN = 100
# Bedrock's failureMessage holds at most 2,048 characters.
MOST_MESSAGE = 2000


@dataclass
class Report:
    """What a job would fail with, of one file."""

    source: Source
    format: Format | None = None
    rows: int = 0
    sha256: str = ""
    problems: list[Problem] = field(default_factory=list)
    num_problems: int = 0

    def add(self, problem: Problem) -> None:
        """Count a problem, and keep it while there is room."""
        self.num_problems += 1
        self.problems.insert(0, problem) if not problem.line else self.keep(problem)

    def keep(self, problem: Problem) -> None:
        """Keep a problem that is counted elsewhere, while there is room."""
        if len(self.problems) < SHOWN:
            self.problems.append(problem)

    @property
    def first_line(self) -> int:
        """The line on which the first row begins."""
        return next(number for number, _ in contents(self))

    def refusal(self, share: int = 1) -> str:
        """All problems in one message; `share` files share Bedrock's failureMessage."""
        whole = [problem for problem in self.problems if not problem.line]
        if whole and len(whole) == self.num_problems:  # nothing is wrong but with the file as a whole
            return f"{self.source.uri}: {' '.join(problem.message for problem in whole)}"
        head = f"{self.source.uri}: {self.num_problems} problem{'s' if self.num_problems != 1 else ''} in {self.rows} rows. "
        text = head
        for shown, problem in enumerate(self.problems):
            line = f"{problem}. "
            if len(text) + len(line) > MOST_MESSAGE // share - 40:
                return f"{text}And {self.num_problems - shown} more."
            text += line
        return text.strip()


def contents(report: Report) -> Iterator[tuple[int, Content]]:
    """Line number and content of every row of a file that passed the check."""
    assert report.format is not None
    is_text = report.format is DOCUMENTS
    for number, *_, line in read_documents(report.source) if is_text else read_lines(report.source):
        content, _ = read_row(number, line, report.format)
        assert content is not None, f"{report.source.uri} changed after it was checked"
        yield number, content
