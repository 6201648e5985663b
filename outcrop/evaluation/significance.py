"""Whether two arms differ: paired tests, their correction for many arms, and what could have been seen at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import NormalDist

import numpy as np

from outcrop.evaluation.intervals import Groups, Scores, as_places, effective, is_right_or_wrong, paired

LEVEL, POWER = 0.05, 0.8
PERMUTATIONS = 5000
# Fewer pairs than this get figures and a warning, not a verdict: the bootstrap's and the tests' approximations are not to be had for less.
FEWEST = 30


@dataclass(frozen=True)
class Test:
    """A test's name and its p value: the chance of a difference as large as this, or larger, between equal arms."""

    name: str
    p: float


def test(first: Scores, second: Scores, seed: int = 0, groups: Groups | None = None) -> Test:
    """McNemar's exact test for right and wrong, else a permutation test that swaps the arms row by row, or group by group.

    Source: McNemar, 1947, in its exact binomial form; sign-flip permutation as in Dror et al., ACL 2018. Raises Invalid when no row
    was answered by both.
    """
    kept, changes = paired(first, second)
    if groups is None and is_right_or_wrong(first, second):
        return Test("McNemar, exact", mcnemar(int((changes > 0).sum()), int((changes < 0).sum())))
    if groups is not None:
        changes = np.bincount(as_places([groups[number] for number in kept]), weights=changes)
    return Test("permutation of pairs" if groups is None else "permutation of groups", _sign_flip(changes, seed))


def mcnemar(better: int, worse: int) -> float:
    """Two-sided exact p value of so many rows turned right and so many turned wrong; 1.0 when none turned."""
    count = better + worse
    if count == 0:
        return 1.0
    if (
        count > 1000
    ):  # the sum has hundreds of digits there; the normal approximation with its correction agrees to 1e-3
        return min(1.0, 2 * NormalDist().cdf(-(abs(better - worse) - 1) / count**0.5))
    tail = sum(comb(count, number) for number in range(min(better, worse) + 1))
    return float(min(1.0, 2 * tail / 2**count))


def _sign_flip(changes: np.ndarray, seed: int) -> float:
    moved = changes[changes != 0]
    if not len(moved):
        return 1.0
    rng = np.random.default_rng(seed)
    seen = abs(float(moved.sum()))
    extreme = 0
    step = max(1, 2_000_000 // len(moved))
    for begin in range(0, PERMUTATIONS, step):
        rows = min(step, PERMUTATIONS - begin)
        signs = rng.integers(0, 2, (rows, len(moved)), dtype=np.int8) * 2.0 - 1.0
        extreme += int((np.abs(signs @ moved) >= seen - 1e-12 * seen).sum())
    return (extreme + 1) / (PERMUTATIONS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for their number, in the order given (Holm, 1979): below 0.05 as often as one single test would be."""
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = highest
    return corrected


def detectable(first: Scores, second: Scores, comparisons: int = 1, groups: Groups | None = None) -> float | None:
    """The smallest true difference that so many pairs show in four of five repetitions, at 5 % shared by the comparisons.

    From the spread of the differences seen; of right and wrong at least as if one row more had turned each way. None when other scores
    do not differ on any row: there is no spread to tell from.
    """
    kept, changes = paired(first, second)
    places = as_places([groups[number] for number in kept]) if groups is not None else None
    if is_right_or_wrong(first, second):
        count = effective(changes, places)
        better, worse = ((float(side.mean()) * count + 1) / (count + 2) for side in (changes > 0, changes < 0))
        spread = (better + worse - (better - worse) ** 2) ** 0.5
    elif places is not None:
        sums, sizes = np.bincount(places, weights=changes), np.bincount(places)
        spread, count = float(np.std(sums - changes.mean() * sizes)) / float(sizes.mean()), float(len(sums))
    else:
        spread, count = float(np.std(changes)), float(len(changes))
    quantile = NormalDist().inv_cdf(1 - LEVEL / 2 / comparisons) + NormalDist().inv_cdf(POWER)
    return float(quantile * spread / count**0.5) if spread else None
