"""Answers that are labels: whether a file is a classification, how even it is, and what is spelled in two ways."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from outcrop.datasets.formats import Problem

# A classification has so many rows a label on average, and its commonest label is this much commoner than the rarest when that
# is worth a word.
ROWS_A_LABEL, UNEVEN = 5, 10
SHOWN = 8


def is_classification(labels: Mapping[str, int] | None) -> bool:
    """Whether answers are labels: short, few, and each of them often."""
    if not labels or "" in labels:
        return False
    rows = sum(labels.values())
    return 2 <= len(labels) <= rows / ROWS_A_LABEL and rows >= 2 * ROWS_A_LABEL


def label_problems(files: list[Counter[str] | None]) -> Iterator[Problem]:
    """What is odd about the labels of a training file and of those held out."""
    train = files[0]
    if train is None or not is_classification(train):
        return
    yield from _spellings(train)
    most, fewest = train.most_common(1)[0], min(train.items(), key=lambda pair: pair[1])
    if most[1] >= UNEVEN * fewest[1]:
        message = f"{len(train)} labels: {most[0]!r} has {most[1]:,} rows, {fewest[0]!r} {fewest[1]:,}"
        yield Problem(0, "", message, kind="label-balance")
    for file, labels in enumerate(files[1:], 1):
        missing = sorted(set(labels or ()) - set(train) - {""})
        if labels is not None and missing and len(missing) <= len(train):
            rows = sum(labels[label] for label in missing)
            named = ", ".join(map(repr, missing[:SHOWN])) + (", ..." if len(missing) > SHOWN else "")
            yield Problem(
                0,
                "",
                f"has {rows:,} rows of labels that the training file does not have: {named}",
                kind="label-missing",
                file=file,
            )


def _spellings(labels: Counter[str]) -> Iterator[Problem]:
    spelled: dict[str, list[str]] = {}
    for label in labels:
        spelled.setdefault(re.sub(r"[\W_]+", "", label.lower()), []).append(label)
    for ways in spelled.values():
        if len(ways) > 1:
            ways.sort(key=lambda way: -labels[way])
            said = ", ".join(f"{way!r} ({labels[way]:,} rows)" for way in ways)
            yield Problem(0, "", f"one label is spelled in {len(ways)} ways: {said}", kind="label-spelling")
