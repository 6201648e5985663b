"""What only shows when rows are held against each other: rows that come twice, contradict each other, or leak.

It works on what `scan` kept of each row, a column at a time; the few rows that seem alike are read again from their files.
"""

from collections.abc import Iterator
from pathlib import Path

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
    yield from _same(prompts, answers, lines, files, told)
    pairs, is_whole = _candidates(columns, answers, prompts, told)
    yield from _near(columns, pairs, paths, forms, lines, files)
    if not is_whole:
        message = f"has so many rows that look alike that {MOST_PAIRS:,} pairs of them were compared, drawn at random, and not all"
        yield Problem(0, "", message, kind="not-compared")


def _same(
    prompts: np.ndarray, answers: np.ndarray, lines: np.ndarray, files: np.ndarray, told: np.ndarray
) -> Iterator[Problem]:
    """Rows whose prompt another row has, too; marks in `told` those that are about to be named as duplicates or leaks."""
    order = np.lexsort((np.arange(len(prompts)), prompts))
    ordered = prompts[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ends = np.concatenate([begins[1:], [len(ordered)]])
    for begin, end in zip(begins[ends - begins > 1], ends[ends - begins > 1], strict=True):
        group = order[begin:end]
        first_of: dict[int, int] = {}
        firsts: dict[int, int] = {}
        for index in group.tolist():
            file, line = int(files[index]), int(lines[index])
            if file and files[group[0]] == 0 and firsts.get(0) is not None:
                told[index] = True
                other = firsts[0]
                message = f"has the prompt of the training file's line {lines[other]}"
                yield Problem(line, "", message, kind="leakage", file=file, other=(0, int(lines[other])))
                continue
            answer = int(answers[index])
            same = first_of.get(answer)
            if same is not None and files[same] == file:
                told[index] = True
                message = f"is the same as line {lines[same]}"
                yield Problem(line, "", message, kind="duplicate", file=file, other=(file, int(lines[same])))
            elif same is None and file in firsts:
                other = firsts[file]
                message = f"has the prompt of line {lines[other]} and another answer"
                yield Problem(line, "", message, kind="conflict", file=file, other=(file, int(lines[other])))
            first_of.setdefault(answer, index)
            firsts.setdefault(file, index)


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
    texts: dict[int, tuple[str, str] | None] = {}

    def text(index: int) -> tuple[str, str] | None:
        if index not in texts:
            if len(texts) > 20_000:
                texts.clear()
            file = opened[files[index]]
            file.seek(int(offsets[index]))
            texts[index] = _prompt_and_answer(file.read(int(sizes[index])), forms[files[index]])
        return texts[index]

    try:
        named: set[int] = set()
        for left, right in pairs.tolist():
            if right in named:
                continue
            mine, yours = text(left), text(right)
            if mine is None or yours is None or not (alike(mine[1], yours[1]) and alike(mine[0], yours[0])):
                continue
            named.add(right)
            file, other = int(files[right]), int(files[left])
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


def _prompt_and_answer(line: bytes, form: str) -> tuple[str, str] | None:
    content: Content | None = read_row(1, line, FORMATS[form])[0]
    if isinstance(content, Conversation):
        prompt = "\n".join([content.system or "", *(message.text for message in content.messages[:-1])])
        return prompt, content.messages[-1].text
    return (content, "") if content is not None else None
