"""Checked files -> rows of tokens."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from outcrop.datasets.formats import Problem
from outcrop.datasets.report import Report, contents
from outcrop.datasets.rows import Rows
from outcrop.errors import Invalid
from outcrop.rendering import Rendered, Renderer


@dataclass(frozen=True)
class Prepared:
    """Rows of one file; `longest` in tokens."""

    rows: Rows
    longest: int


def render(report: Report, renderer: Renderer, most_tokens: int) -> Prepared:
    """Every row in the base model's tokens.

    Raises Invalid that lists the rows with more than `most_tokens` tokens: they are never cut, because a cut answer
    teaches the model to stop in the middle.
    """
    overlong = Report(report.source, rows=report.rows)

    def fitting() -> Iterator[Rendered]:
        for number, content in contents(report):
            try:
                row = renderer.text_row(content) if isinstance(content, str) else renderer.training_row(content)
            except Invalid as error:
                overlong.add(Problem(number, "", error.message))
                continue
            if len(row.tokens) <= most_tokens:
                yield row
            else:
                message = f"has {len(row.tokens):,} tokens; at most {most_tokens:,} fit (maxTokens)"
                overlong.add(Problem(number, "", message))

    rows = Rows.of(fitting())  # row by row into arrays: a large file as Python lists would take many times its size
    if overlong.num_problems:
        raise Invalid(overlong.refusal())
    return Prepared(rows, int(np.diff(rows.starts).max()))


def split(rows: Rows, percentage: float, seed: int) -> tuple[Rows, Rows]:
    """Training and validation rows: so many per cent, drawn by the seed, are set aside; one at least stays on each side."""
    if len(rows) < 2:
        raise Invalid(f"there is {len(rows)} row; evalPercentage needs at least two, one to learn and one to validate")
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    aside = min(max(1, round(len(rows) * percentage / 100)), len(rows) - 1)
    return _select(rows, sorted(order[aside:])), _select(rows, sorted(order[:aside]))


def _select(rows: Rows, indices: list[int]) -> Rows:
    pieces = [rows.row(index) for index in indices]
    starts = np.concatenate([[0], np.cumsum([len(tokens) for tokens, _ in pieces])]).astype(np.int64)
    return Rows(np.concatenate([tokens for tokens, _ in pieces]), np.concatenate([mask for _, mask in pieces]), starts)
