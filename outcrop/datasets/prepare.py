"""Checked files -> rows of tokens."""

import random
from collections.abc import Iterator
from itertools import islice

import numpy as np

from outcrop.datasets.formats import Problem
from outcrop.datasets.report import Report, contents
from outcrop.datasets.rows import Rows
from outcrop.errors import Invalid
from outcrop.rendering import Rendered, Renderer

# Rows rendered at once: enough for every processor, few enough to hold.
AT_ONCE = 256


def render(report: Report, renderer: Renderer, most_tokens: int) -> Rows:
    """Every row in the base model's tokens.

    Plain text of more than `most_tokens` tokens becomes several rows. Raises Invalid that lists the conversations with more:
    they are never cut, because a cut answer teaches the model to stop in the middle.
    """
    overlong = Report(report.source, rows=report.rows)

    def fitting() -> Iterator[Rendered]:
        lines = contents(report)
        while batch := list(islice(lines, AT_ONCE)):
            rendered = renderer.training_rows([content for _, content in batch])
            for (number, content), row in zip(batch, rendered, strict=True):
                if isinstance(row, Invalid):
                    overlong.add(Problem(number, "", row.message))
                elif not any(row.is_answer):
                    overlong.add(Problem(number, "", "has no token that would be learned"))
                elif isinstance(content, str):
                    yield from windows(row, most_tokens)
                elif len(row.tokens) > most_tokens:
                    message = f"has {len(row.tokens):,} tokens; at most {most_tokens:,} fit (maxTokens)"
                    overlong.add(Problem(number, "", message))
                else:
                    yield row

    rows = Rows.of(fitting())  # row by row into arrays: a large file as Python lists would take many times its size
    if overlong.num_problems:
        raise Invalid(overlong.refusal())
    return rows


def windows(row: Rendered, most_tokens: int) -> Iterator[Rendered]:
    """A text in rows of at most `most_tokens`; each begins with the last token of the one before, so that every token is
    learned once."""
    for begin in range(0, max(1, len(row.tokens) - 1), most_tokens - 1):
        tokens = row.tokens[begin : begin + most_tokens]
        yield Rendered(tokens, [False, *row.is_answer[begin + 1 : begin + len(tokens)]])


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
