"""Arms that were asked the same rows -> what can be said of their difference, and what cannot."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from outcrop.errors import Invalid
from outcrop.evaluation import intervals
from outcrop.evaluation.cases import Case, Response, value_at
from outcrop.evaluation.classification import Classified, classify
from outcrop.evaluation.intervals import Measured
from outcrop.evaluation.metrics import COUNT, SHARE, Metric
from outcrop.evaluation.significance import FEWEST, LEVEL, detectable, holm
from outcrop.evaluation.significance import test as significance_of

# Rows that changed are kept of each arm, so many lost and so many won.
BINS, MOST_SLICES, MOST_CHANGED = 12, 12, 100
# So many rows without an answer, or answers that were cut, are worth a word (share of the rows).
FAILED = 0.02

Row = list[float | None]


@dataclass(frozen=True)
class Arm:
    """One way to answer, with what it answered, row by row, and the scores of that by metric."""

    name: str
    responses: list[Response]
    scores: dict[str, Row]


class Figure(msgspec.Struct, frozen=True):
    """A mean, its 95 % interval, over how many rows, and how many had no answer."""

    mean: float
    low: float
    high: float
    counted: int
    failed: int

    @classmethod
    def of(cls, measured: Measured) -> "Figure":
        return cls(measured.mean, measured.low, measured.high, measured.counted, measured.failed)


class Against(msgspec.Struct, frozen=True):
    """An arm against the first one: paired difference, part of the first arm's mean, test, and what could have been seen.

    `p` is of one test, `p_corrected` of it among all arms of the metric (Holm). `verdict` is "better", "worse", "no difference seen",
    "too few rows" or "too few groups".
    """

    difference: Figure
    relative: Figure | None
    test: str
    p: float
    p_corrected: float
    detectable: float | None
    verdict: str


class Measure(msgspec.Struct, frozen=True):
    """One metric: a figure for each arm, and for each but the first what sets it apart. None where no row could be scored."""

    metric: str
    what: str
    form: str
    more_is_better: bool
    arms: list[Figure | None]
    against: list[Against | None]


class Slice(msgspec.Struct, frozen=True):
    """The rows that have a value under a key: the judging metric for each arm."""

    key: str
    value: str
    rows: int
    arms: list[Figure | None]
    differences: list[Figure | None]
    """Each arm but the first against it, paired; a hint, not a verdict."""


class Changed(msgspec.Struct, frozen=True):
    """A row on which an arm and the first one differ by the judging metric."""

    line: int
    question: str
    reference: str | None
    arm: str
    first: str
    other: str
    change: float
    """More is better, whatever the metric's direction."""


class Turned(msgspec.Struct, frozen=True):
    """How many rows an arm does better, worse and as well as the first one."""

    arm: str
    better: int
    worse: int
    same: int


class Histogram(msgspec.Struct, frozen=True):
    """Answers by output tokens; bin n goes from edges[n] to edges[n + 1] - 1."""

    edges: list[int]
    counts: list[list[int]]


class Labels(msgspec.Struct, frozen=True):
    """An arm's answers as labels."""

    arm: str
    macro_f1: Figure
    f1: dict[str, float]
    confusion: list[tuple[str, str, int]]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All that is said of some arms. The first arm is what the others are held against; `judged_by` is the metric of the verdicts."""

    title: str
    rows: int
    groups: int | None
    arms: list[str]
    unanswered: list[int]
    """Rows without an answer, of each arm."""
    judged_by: str
    measures: list[Measure]
    slices: list[Slice]
    turned: list[Turned]
    changed: list[Changed]
    tokens: Histogram | None
    labels: list[Labels]
    warnings: list[str]
    seconds: dict[str, float] = {}
    manifest: dict[str, Any] = {}

    def measure(self, metric: str) -> Measure:
        """A metric's figures."""
        return next(one for one in self.measures if one.metric == metric)


@dataclass(frozen=True)
class Questions:
    """The rows, what they are told apart by, and what belongs together."""

    cases: Sequence[Case]
    slices: Sequence[str] = ()
    group: str = ""
    title: str = ""
    warnings: list[str] = field(default_factory=list)


def compare(asked: Questions, arms: Sequence[Arm], metrics: Sequence[Metric], seed: int = 0) -> Comparison:
    """Hold arms against the first of them, judged by the first metric. Raises Invalid when there is nothing to judge by.

    Intervals and tests know of groups (rows that belong together) when `asked.group` names their key. Corrected are the p values of
    a metric for the number of arms; metrics after the first and slices are to be read as hints, and the warnings say so.
    """
    if not metrics or not arms:
        raise Invalid("a comparison needs an arm and a metric")
    groups = _groups(asked)
    measures = [_measure(metric, arms, seed, groups) for metric in metrics]
    judging = metrics[0]
    if all(one.error for arm in arms for one in arm.responses):
        raise Invalid(f"no arm answers any row; the first: {arms[0].responses[0].error}")
    if all(figure is None for figure in measures[0].arms):
        raise Invalid(f"no answer of any arm can be scored by {judging.name}; choose another metric")
    return Comparison(
        title=asked.title, rows=len(asked.cases), groups=len(set(groups)) if groups is not None else None,
        arms=[arm.name for arm in arms],
        unanswered=[sum(bool(one.error) for one in arm.responses) for arm in arms], judged_by=judging.name, measures=measures, slices=_slices(asked, arms, judging.name, seed, groups),
        turned=[_turned(arms[0], arm, judging) for arm in arms[1:]], changed=_changed(asked.cases, arms, judging),
        tokens=_histogram(arms), labels=_labels(asked.cases, arms, seed) if judging.name == "label" else [],
        warnings=[*asked.warnings, *_warnings(asked, arms, measures)],
    )  # fmt: skip


def _groups(asked: Questions) -> list[Any] | None:
    """What each row belongs to; a row without the key belongs to itself alone."""
    if not asked.group:
        return None
    values = [value_at(case.row, asked.group) for case in asked.cases]
    return [("row", number) if value is None else value for number, value in enumerate(values)]


def _measure(metric: Metric, arms: Sequence[Arm], seed: int, groups: list[Any] | None) -> Measure:
    rows = [arm.scores.get(metric.name) or [None] * len(arms[0].responses) for arm in arms]
    figures = [_figure(row, seed, groups) for row in rows]
    pairs = [number for number in range(1, len(arms)) if _both(rows[0], rows[number])]
    tests = {number: significance_of(rows[0], rows[number], seed, groups) for number in pairs}
    corrected = dict(zip(pairs, holm([tests[number].p for number in pairs]), strict=True))
    against: list[Against | None] = []
    for number in range(1, len(arms)):
        if number not in tests:
            against.append(None)
            continue
        change = intervals.difference(rows[0], rows[number], seed, groups)
        kept, _ = intervals.paired(rows[0], rows[number])
        relative = None
        if metric.form != SHARE and sum(rows[0][place] or 0.0 for place in kept) > 0:
            relative = Figure.of(intervals.relative(rows[0], rows[number], seed, groups))
        units = len({groups[place] for place in kept}) if groups is not None else len(kept)
        against.append(
            Against(
                Figure.of(change), relative, tests[number].name, tests[number].p, corrected[number],
                _within(detectable(rows[0], rows[number], len(pairs), groups), metric.form), verdict(change, corrected[number], metric.more_is_better, units),
            )
        )  # fmt: skip
    return Measure(metric.name, metric.what, metric.form, metric.more_is_better, figures, against)


def _within(size: float | None, form: str) -> float | None:
    """A difference of shares that could be seen, unless it is more than there can be."""
    return None if size is None or (form == SHARE and size > 1) else size


def verdict(change: Measured, p_corrected: float, more_is_better: bool = True, units: int | None = None) -> str:
    """What a difference says: a side only when test and interval agree that there is one, and nothing of fewer than FEWEST rows, or
    groups of rows where `units` counts them."""
    if units is not None and units < min(change.counted, FEWEST):
        return "too few groups"
    if change.counted < FEWEST:
        return "too few rows"
    if p_corrected >= LEVEL or change.low <= 0 <= change.high:
        return "no difference seen"
    return "better" if (change.mean > 0) == more_is_better else "worse"


def _both(first: Row, second: Row) -> bool:
    return any(a is not None and b is not None for a, b in zip(first, second, strict=True))


def _figure(row: Row, seed: int, groups: list[Any] | None) -> Figure | None:
    return None if all(score is None for score in row) else Figure.of(intervals.measure(row, seed, groups))


def _slices(asked: Questions, arms: Sequence[Arm], judging: str, seed: int, groups: list[Any] | None) -> list[Slice]:
    found = []
    for key in asked.slices:
        places: dict[Any, list[int]] = {}
        for number, case in enumerate(asked.cases):
            places.setdefault(value_at(case.row, key), []).append(number)
        for value, mine in _common(places)[:MOST_SLICES]:
            within = [groups[number] for number in mine] if groups is not None else None
            rows = [[arm.scores[judging][number] for number in mine] for arm in arms]
            differences = [
                Figure.of(intervals.difference(rows[0], row, seed, within)) if _both(rows[0], row) else None
                for row in rows[1:]
            ]
            found.append(Slice(key, str(value), len(mine), [_figure(row, seed, within) for row in rows], differences))
    return found


def _common(places: dict[Any, list[int]]) -> list[tuple[Any, list[int]]]:
    """The values of a key, the commonest first."""
    return sorted(
        ((value, mine) for value, mine in places.items() if value is not None),
        key=lambda one: (-len(one[1]), str(one[0])),
    )


def _gains(first: Arm, arm: Arm, judging: Metric) -> list[float | None]:
    """By how much an arm is better on each row; None where either has no score."""
    sign = 1 if judging.more_is_better else -1
    pairs = zip(first.scores[judging.name], arm.scores[judging.name], strict=True)
    return [None if a is None or b is None else sign * (b - a) for a, b in pairs]


def _turned(first: Arm, arm: Arm, judging: Metric) -> Turned:
    gains = [gain for gain in _gains(first, arm, judging) if gain is not None]
    return Turned(arm.name, sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains), gains.count(0.0))


def _changed(cases: Sequence[Case], arms: Sequence[Arm], judging: Metric) -> list[Changed]:
    """Of each arm the rows that it loses most on, and those that it wins most on."""
    found = []
    for arm in arms[1:]:
        gains = [(gain, number) for number, gain in enumerate(_gains(arms[0], arm, judging)) if gain]
        losses, wins = sorted(one for one in gains if one[0] < 0), sorted(one for one in gains if one[0] > 0)
        for gain, number in (*losses[:MOST_CHANGED], *wins[-MOST_CHANGED:]):
            case = cases[number]
            texts = (arms[0].responses[number].text, arm.responses[number].text)
            found.append(Changed(case.line, case.question, case.reference, arm.name, *texts, gain))
    return found


def _histogram(arms: Sequence[Arm]) -> Histogram | None:
    tokens = [[one.output_tokens for one in arm.responses if one.output_tokens is not None] for arm in arms]
    every = [count for some in tokens for count in some]
    if not every:
        return None
    # The longest answers, one in two hundred, share the last bin, so that one that rambles does not flatten the rest.
    top = max(BINS, math.ceil(float(np.percentile(every, 99.5))) + 1)
    step = math.ceil(top / BINS)
    edges = [number * step for number in range(BINS)] + [max(max(every) + 1, BINS * step)]
    return Histogram(edges, [np.histogram(some, edges)[0].tolist() if some else [0] * BINS for some in tokens])


def _labels(cases: Sequence[Case], arms: Sequence[Arm], seed: int) -> list[Labels]:
    with_one = [number for number, case in enumerate(cases) if case.reference is not None]
    found = []
    for arm in arms:
        answers = [None if arm.responses[number].error else arm.responses[number].text for number in with_one]
        if all(answer is None for answer in answers):
            continue
        read: Classified = classify(answers, [str(cases[number].reference) for number in with_one], seed)
        pairs = sorted(
            ((wanted, given, count) for (wanted, given), count in read.confusion.items()), key=lambda one: -one[2]
        )
        found.append(Labels(arm.name, Figure.of(read.macro_f1), read.f1, pairs))
    return found


def _warnings(asked: Questions, arms: Sequence[Arm], measures: Sequence[Measure]) -> list[str]:
    found = []
    if len(asked.cases) < FEWEST:
        found.append(
            f"{len(asked.cases)} rows are too few for a verdict; with fewer than {FEWEST} there are figures and wide intervals only"
        )
    groups = _groups(asked)
    if groups is not None and len(set(groups)) < FEWEST <= len(asked.cases):
        found.append(f"{len(set(groups))} groups of rows are too few for a verdict; {FEWEST} are needed")
    failed = [sum(bool(one.error) for one in arm.responses) for arm in arms]
    if max(failed) > 0 and max(failed) > FAILED * len(asked.cases):
        said = ", ".join(f"{arm.name} {count:,}" for arm, count in zip(arms, failed, strict=True) if count)
        error = next(one.error for arm in arms for one in arm.responses if one.error)
        found.append(
            f"of {len(asked.cases):,} rows these got no answer: {said} (the first: {error}). They are left out of an arm's mean, and of a difference "
            "when either arm has none"
        )
    without = sum(case.reference is None for case in asked.cases)
    if 0 < without < len(asked.cases):
        found.append(
            f"{without:,} of {len(asked.cases):,} rows have no reference: metrics that need one leave them out"
        )
    for arm, count in zip(arms, failed, strict=True):
        if count == len(arm.responses):
            found.append(f"{arm.name} answers no row; the first: {arm.responses[0].error}")
    repeated = len(asked.cases) - len({case.key for case in asked.cases})
    if repeated:
        found.append(
            f"{repeated:,} of the rows {'is a repeat' if repeated == 1 else 'are repeats'} of an earlier one: leave such rows out, or the intervals are too narrow"
        )
    for key in asked.slices:
        values = {value_at(case.row, key) for case in asked.cases} - {None}
        if len(values) > MOST_SLICES:
            found.append(f"{key} has {len(values):,} values; the {MOST_SLICES} commonest are shown")
    for arm in arms:
        cut = sum(not one.is_whole for one in arm.responses)
        if cut > FAILED * len(arm.responses):
            found.append(f"{arm.name}: {cut:,} answers ran into the limit of tokens and were scored as they stand")
    scored = sum(1 for measure in measures if measure.form != COUNT)
    looks = (len(arms) - 1) * (scored - 1) + sum(1 for _ in asked.slices) * len(arms)
    if looks > 0 and len(arms) > 1:
        found.append(
            f"verdicts are by {measures[0].metric} alone, corrected for {len(arms) - 1} comparison{'s' if len(arms) > 2 else ''}; "
            "the other metrics and the slices are hints: of twenty looks at equal arms one seems different"
        )
    return found
