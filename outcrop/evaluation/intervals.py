"""Means and paired differences with 95 % intervals.

Shares of right and wrong get Wilson's score interval (Wilson, 1927), differences of paired right and wrong the adjusted Wald interval
of Bonett and Price (2012): both stay honest at 0 and 100 %, and when two arms agree on every row. Other means get the percentile
bootstrap (Efron and Tibshirani, 1993) with its tails moved outwards as Student's t says, without which it is too narrow on few rows
(Hesterberg, "What Teachers Should Know About the Bootstrap", 2015). Rows that belong together (questions on one table) are not
independent, and an interval that takes them for it is too narrow: when their groups are given the bootstrap draws them together, and the
intervals of right and wrong count only as many rows as the groups leave (Kish's design effect, 1965).

`make bench-intervals` counts how often they hold the truth.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from outcrop.errors import Invalid

DRAWS = 2000
Z = NormalDist().inv_cdf(0.975)
# Numbers that are multiplied at once when a bootstrap's draws meet the values.
BLOCK = 4_000_000
# The draws of more values than this are not kept for the next metric: they would be 2,000 bytes a value.
MOST_KEPT = 20_000

# Groups with another value than the commonest, below which they do not tell how much rows of a group are alike.
FEWEST_TELLING = 5

Scores = Sequence[float | None]
Groups = Sequence[Hashable]


@dataclass(frozen=True)
class Measured:
    """A mean with its interval; `counted` examples went in, `failed` had no answer."""

    mean: float
    low: float
    high: float
    counted: int
    failed: int = 0


def measure(scores: Scores, seed: int = 0, groups: Groups | None = None) -> Measured:
    """Mean of per-example scores; None marks an example with no answer, which is counted as failed and is not a zero.

    `groups` names what each example belongs to. Raises Invalid when no example was answered: there is nothing to report.
    """
    kept = [number for number, score in enumerate(scores) if score is not None]
    if not kept:
        raise Invalid(f"none of {len(scores)} examples was answered; there is nothing to measure")
    values = np.array([scores[number] for number in kept], dtype=float)
    places = _places(groups, kept)
    if set(values) <= {0.0, 1.0} or (not values.std() and 0 <= values[0] <= 1):
        # Shares that are all the same have no spread to draw from; no share varies more than right and wrong do.
        low, high = _wilson(float(values.mean()), effective(values, places))
    else:
        low, high = _bootstrap(values, seed, places)
    return Measured(float(values.mean()), low, high, len(values), len(scores) - len(values))


def difference(first: Scores, second: Scores, seed: int = 0, groups: Groups | None = None) -> Measured:
    """Mean of second minus first over the examples that both answered: paired, so that hard rows do not count as noise.

    Raises Invalid when the two have different lengths or no example in common.
    """
    kept, changes = paired(first, second)
    places = _places(groups, kept)
    if is_right_or_wrong(first, second) or (not changes.any() and _are_shares(first, second)):
        low, high = _bonett_price(changes, effective(changes, places))
    else:
        low, high = _bootstrap(changes, seed, places)
    return Measured(float(changes.mean()), low, high, len(changes), len(first) - len(changes))


def relative(first: Scores, second: Scores, seed: int = 0, groups: Groups | None = None) -> Measured:
    """Mean of second as a part of the mean of first, minus 1: -0.35 says 35 % less. Paired, by the bootstrap of the ratio.

    Raises Invalid as `difference` does, and when the mean of first is 0.
    """
    kept, changes = paired(first, second)
    before = np.array([first[number] for number in kept], dtype=float)
    if not before.mean() > 0:
        raise Invalid("the first arm's mean is 0; there is no part of it to tell")
    places = _places(groups, kept)
    ratios = _means(before + changes, seed, places) / np.maximum(_means(before, seed, places), 1e-12) - 1
    low, high = np.percentile(ratios, _tails(len(before) if places is None else int(places.max()) + 1))
    return Measured(
        float(changes.mean() / before.mean()), float(low), float(high), len(before), len(first) - len(before)
    )


def paired(first: Scores, second: Scores) -> tuple[list[int], np.ndarray]:
    """The examples that both answered, and second minus first there. Raises Invalid."""
    if len(first) != len(second):
        raise Invalid(f"{len(first)} scores cannot be paired with {len(second)}")
    changes = [
        (number, b - a)
        for number, (a, b) in enumerate(zip(first, second, strict=True))
        if a is not None and b is not None
    ]
    if not changes:
        raise Invalid("no example was answered by both; there is nothing to compare")
    return [number for number, _ in changes], np.array([change for _, change in changes], dtype=float)


def is_right_or_wrong(*scores: Scores) -> bool:
    """Whether nothing but 0, 1 and None occurs."""
    return all(value is None or value in (0.0, 1.0) for some in scores for value in some)


def _are_shares(*scores: Scores) -> bool:
    """Whether nothing but values from 0 to 1 and None occurs."""
    return all(value is None or 0 <= value <= 1 for some in scores for value in some)


def as_places(groups: Groups) -> np.ndarray:
    """Names of groups as numbers from 0."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups])


def _places(groups: Groups | None, kept: Sequence[int]) -> np.ndarray | None:
    return None if groups is None else as_places([groups[number] for number in kept])


def effective(values: np.ndarray, places: np.ndarray | None) -> float:
    """How many independent values say as much of the mean as these do in their groups: their number by the design effect (Kish, 1965).

    The number of groups, which is the least that it can be, when the values that stand out are in too few groups to tell.
    """
    if places is None:
        return float(len(values))
    sizes, sums = np.bincount(places), np.bincount(places, weights=values)
    groups, spread = len(sizes), float(values.var())
    kinds, counts = np.unique(values, return_counts=True)
    if len(set(places[values != kinds[counts.argmax()]].tolist())) < FEWEST_TELLING:
        return float(groups)
    between = float(((sums - values.mean() * sizes) ** 2).sum()) / len(values) ** 2 * groups / (groups - 1)
    return float(min(max(spread / between, 1.0), len(values))) if between else float(len(values))


def _wilson(share: float, count: float) -> tuple[float, float]:
    middle = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * (share * (1 - share) / count + Z * Z / (4 * count * count)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def _bonett_price(changes: np.ndarray, effective_count: float) -> tuple[float, float]:
    """Wald's interval with one row more on each side of the disagreement."""
    count = effective_count + 2
    better, worse = ((float(side.mean()) * effective_count + 1) / count for side in (changes > 0, changes < 0))
    half = Z * ((better + worse - (better - worse) ** 2) / count) ** 0.5
    return max(-1.0, better - worse - half), min(1.0, better - worse + half)


def _bootstrap(values: np.ndarray, seed: int, places: np.ndarray | None) -> tuple[float, float]:
    drawn = len(values) if places is None else int(places.max()) + 1
    low, high = np.percentile(_means(values, seed, places), _tails(drawn))
    return float(low), float(high)


def _tails(count: int) -> tuple[float, float]:
    """The percentiles of `count` draws' means that Student's t and the bias of the variance make of 2.5 and 97.5."""
    if count < 2:
        return 0.0, 100.0
    free = count - 1
    # Student's quantile by Cornish and Fisher's expansion, to 0.1 % from six degrees of freedom on.
    t = Z + (Z**3 + Z) / (4 * free) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * free**2)
    tail = 100 * NormalDist().cdf(-t * (count / free) ** 0.5)
    return tail, 100 - tail


def _means(values: np.ndarray, seed: int, places: np.ndarray | None) -> np.ndarray:
    """The mean in every draw of as many examples, or groups, as there are, with replacement."""
    if places is None:
        return np.asarray(_drawn(values, seed) / len(values))
    sums = np.bincount(places, weights=values)
    return np.asarray(_drawn(sums, seed) / np.maximum(_drawn(np.bincount(places).astype(float), seed), 1))


def _drawn(values: np.ndarray, seed: int) -> np.ndarray:
    """The sum in every draw."""
    if len(values) > MOST_KEPT:
        rng = np.random.default_rng(seed)
        return np.array([values[rng.integers(0, len(values), len(values))].sum() for _ in range(DRAWS)])
    counts = _counts(len(values), seed)
    rows = max(1, BLOCK // len(values))
    return np.concatenate([counts[begin : begin + rows] @ values for begin in range(0, len(counts), rows)])


@lru_cache(maxsize=6)
def _counts(size: int, seed: int) -> np.ndarray:
    """How often each of `size` things is in each draw: [DRAWS, size]. The same draws for every metric, so that they are made once."""
    rng = np.random.default_rng(seed)
    counts = np.empty((DRAWS, size), np.uint8 if size > 40 else np.float64)
    for number in range(DRAWS):
        counts[number] = np.bincount(rng.integers(0, size, size), minlength=size)
    return counts
