"""Intervals hold the truth as often as they say, and equal arms are not called different. `make bench-intervals` counts more of it."""

import numpy as np
import pytest

from outcrop.errors import Invalid
from outcrop.evaluation import difference, measure, relative
from outcrop.evaluation.comparison import verdict
from outcrop.evaluation.significance import detectable, holm, mcnemar
from outcrop.evaluation.significance import test as significance_of

REPETITIONS = 400


def arms(rng, count, gain):
    """Right and wrong of two arms on the same rows, hard and easy ones, the second better by `gain`."""
    easy = rng.random(count) * (1 - gain)
    return (rng.random(count) < easy).astype(float).tolist(), (rng.random(count) < easy + gain).astype(float).tolist()


@pytest.mark.parametrize(("count", "gain"), [(60, 0.0), (60, 0.15), (300, 0.05)])
def test_an_interval_of_right_and_wrong_holds_the_truth(count, gain) -> None:
    rng = np.random.default_rng(11)
    inside = 0
    for _ in range(REPETITIONS):
        change = difference(*arms(rng, count, gain))
        inside += change.low <= gain <= change.high
    assert 0.92 <= inside / REPETITIONS <= 0.985


def test_an_interval_of_skewed_counts_holds_the_truth_on_few_rows() -> None:
    rng = np.random.default_rng(12)
    inside = 0
    for seed in range(REPETITIONS):
        first = np.exp(rng.normal(3, 0.8, 40))
        change = difference(first.tolist(), (first * np.exp(rng.normal(0, 0.3, 40))).tolist(), seed % 4)
        inside += change.low <= np.exp(3.32) * (np.exp(0.045) - 1) <= change.high
    assert inside / REPETITIONS >= 0.92


def test_equal_arms_are_called_different_in_one_of_twenty_at_most() -> None:
    rng = np.random.default_rng(13)
    called = 0
    for seed in range(REPETITIONS):
        first, second = arms(rng, 100, 0.0)
        called += verdict(difference(first, second), significance_of(first, second, seed).p) in ("better", "worse")
    assert called / REPETITIONS <= 0.05 + 2 * (0.05 * 0.95 / REPETITIONS) ** 0.5


def test_rows_that_belong_together_make_the_interval_wider() -> None:
    rng = np.random.default_rng(14)
    of_group = rng.random(30).repeat(10)
    first = [0.0] * 300
    second = (of_group + 0.1 * rng.random(300)).tolist()
    groups = [number // 10 for number in range(300)]
    alone, together = difference(first, second), difference(first, second, groups=groups)
    assert together.mean == alone.mean
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert significance_of(first, second, groups=groups).name == "permutation of groups"


def test_groups_that_agree_on_everything_are_not_certain() -> None:
    groups = [number // 6 for number in range(336)]
    nothing = [0.0] * 336
    assert measure(nothing, groups=groups).high == pytest.approx(
        3.84 / (56 + 3.84), abs=1e-3
    )  # as of 56 rows, by Wilson
    change = difference(nothing, nothing, groups=groups)
    assert (change.low, change.high) == (pytest.approx(-0.048, abs=0.005), pytest.approx(0.048, abs=0.005))
    assert detectable(nothing, nothing, groups=groups) > 0.05


def test_mcnemar_is_the_binomial_test() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert mcnemar(600, 500) == pytest.approx(mcnemar(500, 600))


def test_holm_corrects_for_the_number_of_arms_and_keeps_their_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_what_can_be_detected_shrinks_with_the_root_of_the_rows() -> None:
    rng = np.random.default_rng(15)
    few, many = (detectable(*arms(rng, count, 0.1)) for count in (100, 10_000))
    assert few / many == pytest.approx(10, rel=0.25)
    assert detectable([1.0] * 40, [1.0] * 40) > 0


def test_a_true_difference_of_the_detectable_size_is_seen_four_times_in_five() -> None:
    rng = np.random.default_rng(16)
    size = detectable(*arms(rng, 200_000, 0.12)) * (200_000 / 400) ** 0.5
    assert size == pytest.approx(0.12, rel=0.3)  # arms differ by about what 400 rows can show
    seen = sum(significance_of(*arms(rng, 400, size)).p < 0.05 for _ in range(300)) / 300
    assert 0.68 <= seen <= 0.92


def test_a_part_of_the_first_arm_has_an_interval() -> None:
    rng = np.random.default_rng(17)
    first = (20 + 20 * rng.random(200)).tolist()
    part = relative(first, [0.65 * value for value in first])
    assert part.mean == pytest.approx(-0.35)
    assert part.high - part.low < 1e-9
    with pytest.raises(Invalid, match="mean of the first|first arm's mean"):
        relative([0.0, 0.0], [1.0, 1.0])


def test_no_verdict_is_given_of_few_rows() -> None:
    first, second = [0.0] * 20, [1.0] * 20
    assert verdict(difference(first, second), significance_of(first, second).p) == "too few rows"
    assert measure([1.0] * 5).low < 0.6
