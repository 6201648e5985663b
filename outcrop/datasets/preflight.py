"""All the files of a training, checked at once: what would fail, what would hurt, what to look at."""

import itertools
import pickle
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from outcrop.datasets.comparison import compare
from outcrop.datasets.families import FAMILIES, Family
from outcrop.datasets.formats import DOCUMENTS, EVALUATION, TEXT, Format, Problem, detect
from outcrop.datasets.kinds import FAILS, KINDS, SEVERITIES
from outcrop.datasets.labels import label_problems
from outcrop.datasets.report import Report
from outcrop.datasets.scan import KEPT, Columns, Scanned, Stretch, scan
from outcrop.datasets.source import PLAIN_TEXT_ENDINGS, Source, read_lines
from outcrop.errors import Invalid, OutcropError
from outcrop.machine import available_cpus
from outcrop.settings import Settings
from outcrop.storage import sha256_of

# A file of less is looked at by this process alone.
SHARED_FROM = 24 << 20
STRETCHES_A_PROCESS, MOST_PROCESSES = 2, 8
# Rows whose language is another than that of so large a share of the others.
MAIN_LANGUAGE = 0.8
# Fewer steps an epoch than this teach little; fewer rows are refused at AWS (user guide, Claude 3 Haiku).
FEW_STEPS, FEW_ROWS = 4, 32


@dataclass(frozen=True)
class Limits:
    """How many rows and bytes a file may have."""

    fewest: int = 1
    most: int = 10**12
    most_bytes: int = 10**15


def limits_of(settings: Settings, is_text: bool, fewest: int | None = None) -> tuple[Limits, Limits]:
    """An installation's limits of a training file, for continued pre-training or not, and of those held out."""
    return (
        Limits(
            fewest or (1 if is_text else settings.min_training_rows),
            settings.max_pretraining_rows if is_text else settings.max_training_rows, settings.max_training_bytes,
        ),
        Limits(1, settings.max_validation_rows, settings.max_validation_bytes),
    )  # fmt: skip


@dataclass(frozen=True)
class Base:
    """The base model whose tokens count, and the longest row that it takes."""

    folder: Path
    most_tokens: int


@dataclass(frozen=True)
class Files:
    """What is checked together. Validation files are learned from to stop, evaluation files never: both are held out."""

    train: Source
    validation: tuple[Source, ...] = ()
    evaluation: tuple[Source, ...] = ()

    @property
    def all(self) -> tuple[Source, ...]:
        """In the order in which findings count them."""
        return (self.train, *self.validation, *self.evaluation)


@dataclass
class Preflight:
    """What was found. `problems` holds `kept` of each kind in each file; `counts` counts all."""

    reports: list[Report]
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    kept: int = KEPT
    family: str = ""

    @property
    def verdict(self) -> str:
        """ "fails", "hurts", "look" or "good": the worst that was found."""
        found = {KINDS[kind].severity for kind in self.counts}
        return next((severity for severity in SEVERITIES if severity in found), "good")

    def described(self) -> dict[str, Any]:
        """The report as JSON: the verdict, and every finding with where it is and what to do."""
        uris = [report.source.uri for report in self.reports]
        return {
            "verdict": self.verdict, "counts": dict(self.counts),
            "files": [
                {"uri": report.source.uri, "rows": report.rows, "sha256": report.sha256, "form": report.format.name if report.format else None}
                for report in self.reports
            ],
            "findings": [
                {
                    "severity": KINDS[problem.kind].severity, "kind": problem.kind, "uri": uris[problem.file],
                    "line": problem.line or None, "column": problem.column, "field": problem.field or None,
                    "message": problem.message, "remedy": KINDS[problem.kind].remedy,
                    "other": {"uri": uris[problem.other[0]], "line": problem.other[1]} if problem.other else None,
                }
                for problem in self.problems
            ],
        }  # fmt: skip

    def add(self, problem: Problem) -> None:
        """Count a finding, and keep it while there is room for its kind."""
        self.counts[problem.kind] += 1
        if self.counts[problem.kind] <= self.kept:
            self.problems.append(problem)

    def refuse(self) -> None:
        """Raise Invalid when a job would fail: one message for all files, by line and field, that fits Bedrock's limit."""
        failing = [report for report in self.reports if report.num_problems]
        if failing:
            raise Invalid(" ".join(report.refusal(len(failing)) for report in failing))


def preflight(
    files: Files, allowed: tuple[Format, ...], limits: tuple[Limits, Limits] = (Limits(), Limits()), base: Base | None = None,
    hyperparameters: Mapping[str, str] | None = None, family: str = "", compares: bool = True,
    kept: int = KEPT,
) -> Preflight:  # fmt: skip
    """Check a training file and those held out, all of each, and tell everything that is found at once.

    `limits` are the training file's and the others'. `family` adds what AWS would refuse of that family's files. Without
    `compares` rows are not held against each other. Raises Invalid for a family that is not known, and for a file with more
    bytes than its limit, which is not read.
    """
    rules = _rules(family)
    for number, source in enumerate(files.all):
        most_bytes = limits[number > 0].most_bytes
        if source.size > most_bytes:
            raise Invalid(f"{source.uri}: the file has {source.size:,} bytes; at most {most_bytes:,} are allowed")
    with tempfile.TemporaryDirectory(prefix="outcrop-check-") as name:
        found = Preflight([], kept=kept, family=family)
        folders: list[tuple[int, Path, int]] = []
        scanned: list[Scanned] = []
        for number, source in enumerate(files.all):
            is_evaluation = number > len(files.validation)
            forms = EVALUATION if is_evaluation else allowed
            limit = limits[number > 0]
            report = Report(source, format=_form_of(source, forms))
            counted = base if not is_evaluation else None
            stretches = _stretches(
                Stretch(
                    source, 0, source.size, report.format.name if report.format else "", tuple(form.name for form in forms),
                    Path(name) / str(number), counted.folder if counted else None, counted.most_tokens if counted else 0,
                    "" if is_evaluation else family, number, kept,
                )
            )  # fmt: skip
            parts = _scan_all(stretches)
            whole = _merge(parts, stretches, folders, found, report)
            report.sha256 = sha256_of(source.path)
            _count(report, whole, limit, found)
            scanned.append(whole)
            found.reports.append(report)
        for file, report in enumerate(found.reports[: 1 + len(files.validation)]):
            if rules is not None and (message := rules.problem_of_form(report.format)):
                found.add(Problem(0, "", message, kind="limit", file=file))
        for problem in _of_whole_files(files, scanned, rules, hyperparameters or {}):
            found.add(problem)
        if compares:
            columns = Columns(folders)
            forms_found = [report.format.name if report.format else "" for report in found.reports]
            if all(forms_found):
                for problem in compare(columns, [source.path for source in files.all], forms_found):
                    found.add(problem)
    found.problems.sort(key=lambda one: (SEVERITIES.index(KINDS[one.kind].severity), one.file, one.line))
    return found


def _rules(family: str) -> Family | None:
    if family and family not in FAMILIES:
        raise Invalid(f"the family {family!r} is not known; known are {', '.join(FAMILIES)}")
    return FAMILIES.get(family)


def _scan_all(stretches: list[Stretch]) -> Iterator[Scanned]:
    """What each stretch holds, in their order; several are looked at by as many processes as there are processors."""
    if len(stretches) == 1:
        yield scan(stretches[0])
        return
    with ThreadPoolExecutor(_processes()) as waiting:
        yield from waiting.map(_scan_apart, stretches)


def _scan_apart(stretch: Stretch) -> Scanned:
    command = [sys.executable, "-m", "outcrop.datasets"]
    done = subprocess.run(command, input=pickle.dumps(stretch), capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise OutcropError(f"{stretch.source.uri}: the check ended with {done.returncode}: {said}")
    found = pickle.loads(done.stdout)  # noqa: S301  # from our own process
    assert isinstance(found, Scanned)
    return found


def _processes() -> int:
    return max(1, min(available_cpus(), MOST_PROCESSES))


def _stretches(whole: Stretch) -> list[Stretch]:
    """A file in stretches that begin at lines; a small one, or one of documents, in one."""
    size = whole.source.size
    edges = [0]
    if size >= SHARED_FROM and whole.form != DOCUMENTS.name:
        with whole.source.path.open("rb") as opened:
            wanted = size // (STRETCHES_A_PROCESS * _processes()) + 1
            while edges[-1] + wanted < size:
                opened.seek(edges[-1] + wanted)
                while (rest := opened.readline(1 << 20)) and not rest.endswith(b"\n"):
                    pass
                edges.append(opened.tell())
    edges = [*edges, size] if edges[-1] < size else edges
    spans = list(itertools.pairwise(edges)) or [(0, 0)]
    return [
        replace(whole, begin=begin, end=end, columns=whole.columns / str(number))
        for number, (begin, end) in enumerate(spans)
    ]


def _form_of(source: Source, allowed: tuple[Format, ...]) -> Format | None:
    """The form of the first line that has one."""
    if TEXT in allowed and source.uri.endswith(PLAIN_TEXT_ENDINGS):
        return DOCUMENTS
    for _, line in read_lines(source):
        found = detect(line, allowed)
        if isinstance(found, Format):
            return found
    return None


def _merge(
    parts: Iterator[Scanned],
    stretches: list[Stretch],
    folders: list[tuple[int, Path, int]],
    found: Preflight,
    report: Report,
) -> Scanned:
    """The stretches of a file as one; lines are counted from the file's first one."""
    whole = Scanned()
    kept: Counter[str] = Counter()
    for part, stretch in zip(parts, stretches, strict=True):
        folders.append((stretch.file, stretch.columns, whole.lines))
        for problem in part.problems:
            kept[problem.kind] += 1
            moved = msgspec.structs.replace(problem, line=problem.line + whole.lines, file=stretch.file)
            if kept[problem.kind] <= found.kept:
                found.problems.append(moved)
            if KINDS[problem.kind].severity == FAILS:
                report.keep(moved)
        if whole.labels is not None:
            whole.labels = None if part.labels is None else whole.labels + part.labels
        whole.languages += [(line + whole.lines, prompt, answer) for line, prompt, answer in part.languages]
        whole.counts += part.counts
        whole.systems += part.systems
        whole.may_have_systems |= part.may_have_systems
        whole.lines += part.lines
        whole.rows += part.rows
    found.counts += whole.counts
    report.rows, report.num_problems = whole.rows, whole.failing
    return whole


def _count(report: Report, whole: Scanned, limit: Limits, found: Preflight) -> None:
    """Too few rows, or too many, are a problem of the file, not of a line."""
    needed = f"at least {limit.fewest} row{'s' * (limit.fewest != 1)}"
    if whole.rows > limit.most:
        message = f"there are {whole.rows:,} rows; at most {limit.most:,} are allowed; split the file, or raise the limit in the settings"
    elif report.num_problems or whole.rows >= max(1, limit.fewest):
        return
    elif whole.rows == 0:
        message = f"the file is empty; it must hold {needed}"
    else:
        message = f"there {'is' if whole.rows == 1 else 'are'} {whole.rows} row{'s' * (whole.rows != 1)}; at least {limit.fewest} are needed"
    problem = Problem(0, "", message, kind="count", file=len(found.reports))
    report.add(problem)
    found.add(problem)


def _of_whole_files(
    files: Files, scanned: list[Scanned], rules: Family | None, given: Mapping[str, str]
) -> Iterator[Problem]:
    """What shows in a file as a whole, or in the settings."""
    trained = scanned[: 1 + len(files.validation)]
    if rules is not None:
        sizes = [source.size for source in files.all[: len(trained)]]
        for file, message in rules.problems_of_files([one.rows for one in trained], sizes):
            yield Problem(0, "", message, kind="limit", file=file)
        for message in rules.problems_of_hyperparameters(given):
            yield Problem(0, "hyperParameters", message, kind="hyperparameter")
    for file, one in enumerate(scanned):
        yield from _languages(one, file)
    train = scanned[0]
    if 0 < train.systems < train.rows - train.failing:
        message = f"{train.systems:,} of {train.rows:,} rows have a system prompt, the others none"
        yield Problem(0, "", message, kind="system-prompt")
    elif train.rows and not train.systems and train.may_have_systems:
        message = "no row has a system prompt; if the model will be asked with one, train it with that"
        yield Problem(0, "", message, kind="system-prompt")
    if 0 < train.rows < FEW_ROWS:
        yield Problem(
            0, "", f"has {train.rows} rows; AWS takes no fewer than {FEW_ROWS} for Claude 3 Haiku", kind="few-rows"
        )
    yield from label_problems([one.labels for one in scanned])
    wants_stopping = {"earlyStoppingThreshold", "earlyStoppingPatience"} & set(given)
    if wants_stopping and not files.validation and "evalPercentage" not in given:
        names = " and ".join(sorted(wants_stopping))
        yield Problem(
            0,
            "hyperParameters",
            f"{names} given, but no validation data: training will not stop early",
            kind="early-stopping",
        )
    if "batchSize" in given and given["batchSize"].isdecimal() and 0 < train.rows < FEW_STEPS * int(given["batchSize"]):
        message = f"{train.rows:,} rows make {-(-train.rows // int(given['batchSize']))} steps an epoch at batchSize {given['batchSize']}"
        yield Problem(0, "hyperParameters", message, kind="few-rows")


def _languages(scanned: Scanned, file: int) -> Iterator[Problem]:
    """Rows of another language than most, and answers of another than their prompt; of the rows that were asked."""
    called = Counter(prompt or answer for _, prompt, answer in scanned.languages if prompt or answer)
    if not called:
        return
    main, count = called.most_common(1)[0]
    if count >= MAIN_LANGUAGE * called.total():
        for line, prompt, answer in scanned.languages:
            if (prompt or answer or main) != main:
                yield Problem(
                    line, "", f"is in {prompt or answer}; most rows are in {main}", kind="language", file=file
                )
    for line, prompt, answer in scanned.languages:
        if prompt and answer and prompt != answer and prompt == main:
            yield Problem(
                line, "", f"has its prompt in {prompt} and its answer in {answer}", kind="language", file=file
            )


def check(source: Source, allowed: tuple[Format, ...], *, fewest: int, most: int, most_bytes: int) -> Report:
    """One file by itself, for what a job would fail with alone. Raises Invalid with all of it."""
    found = preflight(Files(source), allowed, (Limits(fewest, most, most_bytes),) * 2, compares=False)
    found.refuse()
    return found.reports[0]
