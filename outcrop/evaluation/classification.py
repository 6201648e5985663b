"""Answers that are labels: macro-F1 with its interval, and which label was taken for which."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from outcrop.errors import Invalid
from outcrop.evaluation.cases import Case, Response
from outcrop.evaluation.intervals import DRAWS, Measured
from outcrop.evaluation.scores import bare, label_of

# What is said of an answer that gives none of the labels.
NO_LABEL = "(no label)"


@dataclass(frozen=True)
class Classified:
    """How labels were given. `confusion` counts (wanted, given) pairs; what was given may be NO_LABEL."""

    macro_f1: Measured
    f1: dict[str, float]
    confusion: dict[tuple[str, str], int]


def classify(answers: Sequence[str | None], wanted: Sequence[str], seed: int = 0) -> Classified:
    """Macro-F1, the mean over the labels that occur in `wanted` of each one's F1, with a bootstrap interval over the rows.

    An answer that gives no label counts against its wanted one; None is a row without an answer, counted as failed. Raises Invalid when
    no row was answered.
    """
    first: dict[str, str] = {}
    for label in sorted(set(wanted)):
        first.setdefault(bare(label), label)
    wanted, labels = [first[bare(label)] for label in wanted], list(first.values())
    kept = [number for number, answer in enumerate(answers) if answer is not None]
    if not kept:
        raise Invalid(f"none of {len(answers)} examples was answered; there is nothing to measure")
    number_of = {label: number for number, label in enumerate(labels)}
    gold = np.array([number_of[wanted[number]] for number in kept])
    given = np.array([number_of.get(label_of(answers[number] or "", labels) or "", len(labels)) for number in kept])
    rng = np.random.default_rng(seed)
    whole = _f1(gold, given, len(labels))
    draws = []
    for _ in range(DRAWS):
        rows = rng.integers(0, len(kept), len(kept))
        draws.append(float(_f1(gold[rows], given[rows], len(labels), present=True).mean()))
    low, high = np.percentile(draws, [2.5, 97.5])
    pairs = Counter(zip(gold.tolist(), given.tolist(), strict=True))
    named = [*labels, NO_LABEL]
    return Classified(
        Measured(float(whole.mean()), float(low), float(high), len(kept), len(answers) - len(kept)),
        dict(zip(labels, whole.tolist(), strict=True)),
        {(named[first], named[second]): count for (first, second), count in pairs.items()},
    )


def label_scores(
    responses: Sequence[Response], cases: Sequence[Case], of: Sequence[Case] | None = None
) -> list[float | None]:
    """1.0 where an answer gives its row's label, out of all labels that occur in `of`, or in the cases themselves; None for rows without
    an answer or a label."""
    labels = sorted({case.reference for case in (of or cases) if case.reference is not None})
    return [
        None
        if given.error or case.reference is None
        else float(bare(label_of(given.text, labels) or "") == bare(case.reference))
        for given, case in zip(responses, cases, strict=True)
    ]


def _f1(gold: np.ndarray, given: np.ndarray, labels: int, present: bool = False) -> np.ndarray:
    """Each label's F1; with `present` only of labels that are wanted somewhere."""
    right = np.bincount(gold[gold == given], minlength=labels)
    wanted, said = np.bincount(gold, minlength=labels), np.bincount(given, minlength=labels + 1)[:labels]
    f1 = 2 * right / np.maximum(wanted + said, 1)
    return np.asarray(f1[wanted > 0] if present else f1)
