"""A learning curve: what more rows would bring, and how little is known of it.

The error falls as a + b n^-c (Hestness et al., 2017: a power law down to what cannot be removed). The interval is that of the curves
through bootstrapped test rows: it knows the test set's chance, not that of the training rows, nor whether the law holds further on.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

DRAWS = 400
FURTHER = (2, 4)


class Point(msgspec.Struct, frozen=True):
    """So many training rows, and the score then; measured, or with `is_guess` what the curve says."""

    rows: int
    mean: float
    low: float
    high: float
    is_guess: bool = False


class Curve(msgspec.Struct, frozen=True):
    """Points by their number of rows, measured ones first. `says` is what they mean in words."""

    points: list[Point]
    says: str


def fit(sizes: Sequence[int], scores: Sequence[Sequence[float]], seed: int = 0) -> Curve:
    """From the scores (0 to 1, more is better) of the same test rows at each size. With fewer than three sizes nothing is guessed."""
    table = np.array(scores, dtype=float)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, table.shape[1], (DRAWS, table.shape[1]))
    drawn = table[:, rows].mean(axis=2)  # [sizes, DRAWS]
    points = []
    for size, mean, draws in zip(sizes, table.mean(axis=1), drawn, strict=True):
        low, high = np.percentile(draws, [2.5, 97.5])
        points.append(Point(size, float(mean), float(low), float(high)))
    if len(sizes) < 3:
        return Curve(points, "too few sizes to say what more rows would bring")
    if _misses(sizes, table.mean(axis=1), [(point.high - point.low) / 2 for point in points]):
        return Curve(points, "the points follow no power law, so nothing is said of more rows")
    gains: list[tuple[float, float, float]] = []
    for times in FURTHER:
        further = sizes[-1] * times
        guesses = np.array([_guess(sizes, draws, further) for draws in drawn.T])
        low, high = np.percentile(guesses, [2.5, 97.5])
        mean = _guess(sizes, table.mean(axis=1), further)
        points.append(Point(further, mean, float(low), float(high), True))
        # Of each draw by itself: rows that are hard at one size are hard at the next.
        low, high = np.percentile(guesses - drawn[-1], [2.5, 97.5])
        gains.append((mean - points[len(sizes) - 1].mean, float(low), float(high)))
    return Curve(points, _said(sizes[-1] * FURTHER[0], *gains[0]))


def _said(rows: int, gain: float, low: float, high: float) -> str:
    """What twice the rows would bring, in words."""
    between = f"{100 * gain:+.1f} pt [{100 * low:+.1f}, {100 * high:+.1f}]"
    if low > 0.01:
        return f"{rows:,} rows would bring {between}: more rows are worth getting"
    if high < 0.03:
        return f"{rows:,} rows would bring {between}: there are enough"
    return f"{rows:,} rows may bring {between}: these rows do not tell"


def _misses(sizes: Sequence[int], means: np.ndarray, widths: Sequence[float]) -> bool:
    """Whether the law misses a point by more than chance does: twice the half of its interval, and two points at least."""
    return any(
        abs(_guess(sizes, means, size) - mean) > max(2 * width, 0.02)
        for size, mean, width in zip(sizes, means, widths, strict=True)
    )


def _guess(sizes: Sequence[int], means: np.ndarray, further: int) -> float:
    """The score at a further size: least squares over a and b for each exponent of a grid, the best of them."""
    errors, best = 1 - np.asarray(means, dtype=float), (np.inf, float(means[-1]))
    for exponent in np.linspace(0.1, 2.0, 20):
        powers = np.array([size**-exponent for size in sizes])
        design = np.stack([np.ones_like(powers), powers], axis=1)
        (floor, slope), *_ = np.linalg.lstsq(design, errors, rcond=None)
        if floor < 0:
            floor, slope = 0.0, float(powers @ errors / (powers @ powers))
        if slope < 0:
            floor, slope = float(errors.mean()), 0.0
        miss = float(((floor + slope * powers - errors) ** 2).sum())
        if miss < best[0]:
            best = (miss, 1 - floor - slope * further**-exponent)
    return float(min(max(best[1], 0.0), 1.0))
