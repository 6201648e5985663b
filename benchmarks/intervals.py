"""Whether intervals hold the truth as often as they say, and equal arms are left equal. `make bench-intervals`.

Simulated arms answer the same rows, hard and easy ones, with a known true difference. 95 % intervals are to hold it in 93 to 97 % of the
repetitions, and equal arms are to be called different in at most 5 %.
"""

import argparse
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import record
from outcrop.evaluation import difference
from outcrop.evaluation.comparison import verdict
from outcrop.evaluation.significance import test as significance_of

Arms = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def right_or_wrong(gain: float) -> Callable[[np.random.Generator, int], Arms]:
    def draw(rng: np.random.Generator, rows: int) -> Arms:
        easy = rng.random(rows) * (1 - gain)
        return (rng.random(rows) < easy).astype(float), (rng.random(rows) < easy + gain).astype(float), None

    return draw


def f1(gain: float) -> Callable[[np.random.Generator, int], Arms]:
    """Scores that are 1, or somewhere between 0 and a half: as F1 is. The second arm is whole `gain / 0.75` more often."""

    def draw(rng: np.random.Generator, rows: int) -> Arms:
        easy = rng.random(rows) * (1 - gain / 0.75)
        halves = [np.where(rng.random(rows) < share, 1.0, rng.random(rows) / 2) for share in (easy, easy + gain / 0.75)]
        return halves[0], halves[1], None

    return draw


def tokens(part: float) -> Callable[[np.random.Generator, int], Arms]:
    """Lengths with a long tail, the second arm's `part` of the first's on average. The truth is told by `tokens_truth`."""

    def draw(rng: np.random.Generator, rows: int) -> Arms:
        first = np.exp(rng.normal(3, 0.6, rows))
        return first, first * part * np.exp(rng.normal(-0.045, 0.3, rows)), None

    return draw


def tokens_truth(part: float) -> float:
    return float(np.exp(3 + 0.18) * (part - 1))


def grouped(gain: float) -> Callable[[np.random.Generator, int], Arms]:
    """Six questions on each table, the tables hard or easy for each arm in its own way."""

    def draw(rng: np.random.Generator, rows: int) -> Arms:
        tables = np.arange(rows) // 6
        lean = rng.uniform(-0.2, 0.2, (2, tables.max() + 1))
        first, second = (rng.random(rows) < 0.4 + extra + lean[arm][tables] for arm, extra in ((0, 0.0), (1, gain)))
        return first.astype(float), second.astype(float), tables

    return draw


CASES = (
    ("right or wrong", right_or_wrong(0.0), 50, 0.0), ("right or wrong", right_or_wrong(0.0), 300, 0.0),
    ("right or wrong", right_or_wrong(0.1), 100, 0.1), ("right or wrong", right_or_wrong(0.05), 1000, 0.05),
    ("F1", f1(0.0), 100, 0.0), ("F1", f1(0.1), 100, 0.1), ("F1", f1(0.05), 500, 0.05),
    ("output tokens", tokens(1.0), 200, 0.0), ("output tokens", tokens(0.65), 60, tokens_truth(0.65)),
    ("right or wrong, six questions a table", grouped(0.0), 336, 0.0), ("right or wrong, six questions a table", grouped(0.1), 336, 0.1),
)  # fmt: skip


def main() -> None:
    """Count, print, and write benchmarks/results/intervals.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=2000)
    chosen = parser.parse_args()
    table = Table("arms", "rows", "true difference", "held", "called different")
    found = []
    for name, draw, rows, truth in CASES:
        rng = np.random.default_rng(20261125)
        held = called = 0
        for repetition in range(chosen.repetitions):
            first, second, groups = draw(rng, rows)
            of = None if groups is None else groups.tolist()
            change = difference(first.tolist(), second.tolist(), repetition % 8, of)
            p = significance_of(first.tolist(), second.tolist(), repetition, of).p
            held += change.low <= truth <= change.high
            called += verdict(change, p) in ("better", "worse")
        one = {
            "arms": name,
            "rows": rows,
            "truth": truth,
            "held": held / chosen.repetitions,
            "called": called / chosen.repetitions,
        }
        found.append(one)
        table.add_row(name, str(rows), f"{truth:.3g}", f"{one['held']:.1%}", f"{one['called']:.1%}")
    Console().print(table)
    print(record.write("intervals", {"repetitions": chosen.repetitions, "cases": found}))


if __name__ == "__main__":
    main()
