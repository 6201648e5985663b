"""Means with 95 % intervals.

Shares of right and wrong get Wilson's score interval (Wilson, 1927), which stays honest at 0 and 100 %; other means the
percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from outcrop.errors import Invalid

DRAWS = 2000


@dataclass(frozen=True)
class Measured:
    """A mean with its interval; `counted` examples went in, `failed` had no answer."""

    mean: float
    low: float
    high: float
    counted: int
    failed: int = 0


def measure(scores: Sequence[float | None], seed: int = 0) -> Measured:
    """Mean of per-example scores; None marks an example with no answer, which is counted as failed and is not a zero.

    Raises Invalid when no example was answered: there is nothing to report.
    """
    counted = np.array([score for score in scores if score is not None], dtype=float)
    if not len(counted):
        raise Invalid(f"none of {len(scores)} examples was answered; there is nothing to measure")
    low, high = _wilson(counted) if set(counted) <= {0.0, 1.0} else _bootstrap(counted, seed)
    return Measured(float(counted.mean()), low, high, len(counted), len(scores) - len(counted))


def difference(first: Sequence[float | None], second: Sequence[float | None], seed: int = 0) -> Measured:
    """Mean of second minus first over the examples that both answered: paired, so that hard rows do not count as noise.

    Raises Invalid when the two have different lengths or no example in common.
    """
    if len(first) != len(second):
        raise Invalid(f"{len(first)} scores cannot be paired with {len(second)}")
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if not pairs:
        raise Invalid("no example was answered by both; there is nothing to compare")
    changes = np.array([b - a for a, b in pairs])
    low, high = _bootstrap(changes, seed)
    return Measured(float(changes.mean()), low, high, len(changes), len(first) - len(changes))


def _wilson(values: np.ndarray) -> tuple[float, float]:
    count, share, z = len(values), float(values.mean()), 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def _bootstrap(values: np.ndarray, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(DRAWS)])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
