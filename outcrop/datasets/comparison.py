"""What only shows when rows are held against each other: rows that come twice, contradict each other, or leak.

It works on what `scan` kept of each row, a column at a time; the few rows that seem alike are read again from their files.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from outcrop.datasets.formats import FORMATS, Problem, read_row
from outcrop.datasets.likeness import BANDS, alike
from outcrop.datasets.scan import Columns, Said, said_of

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
    files = columns.files()
    if not len(files):
        return
    told = np.zeros(len(files), bool)
    if files[-1]:  # there are held-out rows
        yield from _leaks(columns, files, told)
    yield from _same(columns, files, told)
    pairs, is_whole = _candidates(columns, told)
    yield from _near(columns, pairs, paths, forms, files)
    if not is_whole:
        message = f"has so many rows that look alike that {MOST_PAIRS:,} pairs of them were compared, drawn at random, and not all"
        yield Problem(0, "", message, kind="not-compared")


def _leaks(columns: Columns, files: np.ndarray, told: np.ndarray) -> Iterator[Problem]:
    """Held-out rows whose prompt a training row has, system prompts apart: evaluation's form has no place for them. One problem for
    each training row. Marks held-out rows in `told`."""
    turns = columns.read("turns")
    held_out = np.flatnonzero(files > 0)
    trained = np.flatnonzero((files == 0) & np.isin(turns, turns[held_out]))
    trained = trained[np.argsort(turns[trained], kind="stable")]
    begins = np.searchsorted(turns[trained], turns[held_out])
    ends = np.searchsorted(turns[trained], turns[held_out], "right")
    lines, other_lines = columns.take("line", held_out), columns.take("line", trained)
    for index, line, begin, end in zip(held_out.tolist(), lines.tolist(), begins.tolist(), ends.tolist(), strict=True):
        told[index] = end > begin
        for other in other_lines[begin:end].tolist():
            message = f"has the prompt of the training file's line {other}"
            yield Problem(line, "", message, kind="leakage", file=int(files[index]), other=(0, other))


def _same(columns: Columns, files: np.ndarray, told: np.ndarray) -> Iterator[Problem]:
    """Rows whose prompt another row of their file has, too; marks in `told` those that are named as duplicates."""
    rows, groups = _groups(columns.read("prompt"))
    order = np.lexsort((rows, files[rows], groups))
    rows, groups = rows[order], groups[order]
    answers, lines = columns.take("answer", rows), columns.take("line", rows)
    first: dict[int, int] = {}
    group, begin = (-1, -1), 0
    for place, index in enumerate(rows.tolist()):
        here = (int(groups[place]), int(files[index]))
        if here != group:
            group, begin, first = here, place, {}
        line, answer, file = int(lines[place]), int(answers[place]), int(files[index])
        same = first.get(answer)
        if same is not None:
            told[index] = True
            yield Problem(line, "", f"is the same as line {same}", kind="duplicate", file=file, other=(file, same))
            continue
        if place > begin:
            before = int(lines[begin])
            yield Problem(
                line,
                "",
                f"has the prompt of line {before} and another answer",
                kind="conflict",
                file=file,
                other=(file, before),
            )
        first[answer] = line


def _groups(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose key another row has, too, and the number of each one's group; rows by themselves, mostly all, are left out."""
    order = np.argsort(keys).astype(np.int32)
    keys = keys[order]
    same = keys[1:] == keys[:-1]
    mates = np.concatenate([same, [False]]) | np.concatenate([[False], same])
    begins = np.concatenate([[True], ~same])[mates]
    return order[mates], np.cumsum(begins, dtype=np.int32)


def _candidates(columns: Columns, told: np.ndarray) -> tuple[np.ndarray, bool]:
    """Pairs of rows that share FEWEST_BANDS and are not the same row: int64 [pairs, 2]; and whether those are all."""
    found: list[np.ndarray] = []
    for band in range(BANDS):
        rows, groups = _groups(columns.read(f"band{band}"))
        # Millions of short rows may share a band: four bytes of an answer's hash do, and what is done with is let go of.
        answers = columns.take("answer", rows).astype(np.uint32)
        # In large groups rows meet those first whose answer is the same.
        order = np.lexsort((answers, groups)).astype(np.int32)
        rows, answers = rows[order], answers[order]  # the groups are in order already
        del order
        sizes = np.bincount(groups).astype(np.int32)[groups] if len(groups) else groups
        for step in range(1, LARGEST_GROUP):
            same = groups[step:] == groups[:-step]
            if not same.any():
                break
            left, right = rows[:-step][same], rows[step:][same]
            near = (sizes[step:][same] <= LARGEST_GROUP) | (
                (answers[:-step][same] == answers[step:][same]) & (step <= NEIGHBOURS)
            )
            near &= ~told[left] & ~told[right]
            left, right = left[near].astype(np.int64), right[near].astype(np.int64)
            found.append(np.minimum(left, right) * len(told) + np.maximum(left, right))
    codes, bands = np.unique(np.concatenate(found), return_counts=True) if found else (np.zeros(0, np.int64),) * 2
    pairs = np.stack(np.divmod(codes[bands >= FEWEST_BANDS], len(told)), axis=1)
    pairs = pairs[columns.take("prompt", pairs[:, 0]) != columns.take("prompt", pairs[:, 1])]
    if len(pairs) <= MOST_PAIRS:
        return pairs, True
    return pairs[np.sort(np.random.default_rng(0).choice(len(pairs), MOST_PAIRS, replace=False))], False


def _near(
    columns: Columns, pairs: np.ndarray, paths: list[Path], forms: list[str], files: np.ndarray
) -> Iterator[Problem]:
    """Of the candidates those that really say nearly the same, each row once."""
    if not len(pairs):
        return
    wanted = np.unique(pairs)
    places = dict(
        zip(
            wanted.tolist(),
            zip(*(columns.take(name, wanted).tolist() for name in ("line", "offset", "size")), strict=True),
            strict=True,
        )
    )
    opened = [path.open("rb") for path in paths]
    texts: dict[int, Said | None] = {}

    def text(index: int) -> Said | None:
        if index not in texts:
            if len(texts) > 20_000:
                texts.clear()
            file = opened[files[index]]
            _, offset, size = places[index]
            file.seek(offset)
            texts[index] = _said(file.read(size), forms[files[index]])
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
            if file == other and not alike(mine.system or "", yours.system or ""):
                continue
            named.add(right)
            if file == other:
                message = f"is nearly the same as line {places[left][0]}"
                yield Problem(
                    places[right][0], "", message, kind="near-duplicate", file=file, other=(other, places[left][0])
                )
            elif other == 0:
                message = f"is nearly the same as the training file's line {places[left][0]}"
                yield Problem(places[right][0], "", message, kind="leakage", file=file, other=(other, places[left][0]))
    finally:
        for one in opened:
            one.close()


def _said(line: bytes, form: str) -> Said | None:
    content = read_row(1, line, FORMATS[form])[0]
    return said_of(content) if content is not None else None
