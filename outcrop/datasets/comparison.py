"""What only shows when rows are held against each other: rows that come twice, contradict each other, or leak.

It works on what `scan` kept of each row, a column at a time; the few rows that seem alike are read again from their files.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from outcrop.datasets.formats import FORMATS, Content, Problem, read_row
from outcrop.datasets.likeness import BANDS, alike
from outcrop.datasets.scan import Columns
from outcrop.rendering import Conversation

# Rows that seem alike are compared with so many of their kind at most, and so many pairs in all.
NEIGHBOURS, MOST_PAIRS = 6, 60_000
LARGEST_GROUP = 12
# Rows that share 80 % of their pairs of words share so many bands with a chance of 99.6 %, those that share 30 % with 15 %.
FEWEST_BANDS = 2


def compare(columns: Columns, paths: list[Path], forms: list[str]) -> Iterator[Problem]:
    """Problems of the kinds duplicate, conflict, leakage, near-duplicate and not-compared.

    The files are the training file and held-out ones. A row is called a duplicate of the first that is the same; held-out rows
    leak when a training row has their prompt.
    """
    prompts, answers, lines, files = (
        columns.read("prompt"), columns.read("answer"), columns.read("line"), columns.files(),
    )  # fmt: skip
    if not len(prompts):
        return
    told = np.zeros(len(prompts), bool)
    if files[-1]:  # there are held-out rows
        yield from _leaks(columns.read("turns"), lines, files, told)
    yield from _same(prompts, answers, lines, files, told)
    pairs, is_whole = _candidates(columns, answers, prompts, told)
    yield from _near(columns, pairs, paths, forms, lines, files)
    if not is_whole:
        message = f"has so many rows that look alike that {MOST_PAIRS:,} pairs of them were compared, drawn at random, and not all"
        yield Problem(0, "", message, kind="not-compared")


def _leaks(turns: np.ndarray, lines: np.ndarray, files: np.ndarray, told: np.ndarray) -> Iterator[Problem]:
    """Held-out rows whose prompt a training row has, system prompts apart: evaluation's form has no place for them. One problem for
    each training row. Marks held-out rows in `told`."""
    trained = np.flatnonzero(files == 0)
    trained = trained[np.argsort(turns[trained], kind="stable")]
    held_out = np.flatnonzero(files > 0)
    begins = np.searchsorted(turns[trained], turns[held_out])
    ends = np.searchsorted(turns[trained], turns[held_out], "right")
    for index, begin, end in zip(held_out.tolist(), begins.tolist(), ends.tolist(), strict=True):
        told[index] = end > begin
        for other in trained[begin:end].tolist():
            message = f"has the prompt of the training file's line {lines[other]}"
            yield Problem(
                int(lines[index]), "", message, kind="leakage", file=int(files[index]), other=(0, int(lines[other]))
            )


def _same(
    prompts: np.ndarray, answers: np.ndarray, lines: np.ndarray, files: np.ndarray, told: np.ndarray
) -> Iterator[Problem]:
    """Rows whose prompt another row of their file has, too; marks in `told` those that are named as duplicates."""
    order = np.lexsort((np.arange(len(prompts)), prompts, files))
    apart = (prompts[order][1:] != prompts[order][:-1]) | (files[order][1:] != files[order][:-1])
    begins = np.flatnonzero(np.concatenate([[True], apart]))
    ends = np.concatenate([begins[1:], [len(order)]])
    for begin, end in zip(begins[ends - begins > 1], ends[ends - begins > 1], strict=True):
        group = order[begin:end].tolist()
        first = {int(answers[group[0]]): group[0]}
        for index in group[1:]:
            file, line, answer = int(files[index]), int(lines[index]), int(answers[index])
            same = first.get(answer)
            if same is not None:
                told[index] = True
                yield Problem(
                    line,
                    "",
                    f"is the same as line {lines[same]}",
                    kind="duplicate",
                    file=file,
                    other=(file, int(lines[same])),
                )
            else:
                first[answer] = index
                message = f"has the prompt of line {lines[group[0]]} and another answer"
                yield Problem(line, "", message, kind="conflict", file=file, other=(file, int(lines[group[0]])))


def _candidates(
    columns: Columns, answers: np.ndarray, prompts: np.ndarray, told: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Pairs of rows that share FEWEST_BANDS and are not the same row: int64 [pairs, 2]; and whether those are all."""
    found: list[np.ndarray] = []
    for band in range(BANDS):
        keys = columns.band(band)
        # In large groups rows meet those first whose answer is the same.
        order = np.lexsort((answers, keys)).astype(np.int64)
        ordered = keys[order]
        del keys
        begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        sizes = np.diff(np.concatenate([begins, [len(ordered)]]))
        group_size = np.repeat(sizes, sizes)
        for step in range(1, LARGEST_GROUP):
            same = ordered[step:] == ordered[:-step]
            if not same.any():
                break
            left, right = order[:-step][same], order[step:][same]
            size = group_size[step:][same]
            near = (size <= LARGEST_GROUP) | ((answers[left] == answers[right]) & (step <= NEIGHBOURS))
            near &= ~told[left] & ~told[right] & (prompts[left] != prompts[right])
            found.append((np.minimum(left, right) * len(answers) + np.maximum(left, right))[near])
    codes, bands = np.unique(np.concatenate(found), return_counts=True) if found else (np.zeros(0, np.int64),) * 2
    pairs = np.stack(np.divmod(codes[bands >= FEWEST_BANDS], len(answers)), axis=1)
    if len(pairs) <= MOST_PAIRS:
        return pairs, True
    return pairs[np.sort(np.random.default_rng(0).choice(len(pairs), MOST_PAIRS, replace=False))], False


def _near(
    columns: Columns, pairs: np.ndarray, paths: list[Path], forms: list[str], lines: np.ndarray, files: np.ndarray
) -> Iterator[Problem]:
    """Of the candidates those that really say nearly the same, each row once."""
    if not len(pairs):
        return
    offsets, sizes = columns.read("offset"), columns.read("size")
    opened = [path.open("rb") for path in paths]
    texts: dict[int, _Said | None] = {}

    def text(index: int) -> _Said | None:
        if index not in texts:
            if len(texts) > 20_000:
                texts.clear()
            file = opened[files[index]]
            file.seek(int(offsets[index]))
            texts[index] = _said(file.read(int(sizes[index])), forms[files[index]])
        return texts[index]

    try:
        named: set[int] = set()
        for left, right in pairs.tolist():
            file, other = int(files[right]), int(files[left])
            if file == other and right in named:
                continue
            mine, yours = text(left), text(right)
            if (
                mine is None
                or yours is None
                or not (alike(mine.answer, yours.answer) and alike(mine.turns, yours.turns))
            ):
                continue
            if file == other and not alike(mine.system, yours.system):
                continue
            named.add(right)
            if file == other:
                message = f"is nearly the same as line {lines[left]}"
                yield Problem(
                    int(lines[right]), "", message, kind="near-duplicate", file=file, other=(other, int(lines[left]))
                )
            elif other == 0:
                message = f"is nearly the same as the training file's line {lines[left]}"
                yield Problem(
                    int(lines[right]), "", message, kind="leakage", file=file, other=(other, int(lines[left]))
                )
    finally:
        for one in opened:
            one.close()


class _Said(NamedTuple):
    """What a row says."""

    system: str
    turns: str
    answer: str


def _said(line: bytes, form: str) -> _Said | None:
    content: Content | None = read_row(1, line, FORMATS[form])[0]
    if isinstance(content, Conversation):
        turns = "\n".join(message.text for message in content.messages[:-1])
        return _Said(content.system or "", turns, content.messages[-1].text)
    return _Said("", content, "") if content is not None else None
