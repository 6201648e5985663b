"""A comparison says what can be said: by groups, by direction, of arms that fail, and of rows that come twice."""

import numpy as np
import pytest

from outcrop.errors import Invalid
from outcrop.evaluation import Arm, Case, Metric, Questions, Response, page
from outcrop.evaluation.charts import points
from outcrop.evaluation.comparison import compare
from outcrop.evaluation.page import headline
from outcrop.rendering import Conversation
from outcrop.workflows.guards import SKETCHED, are_the_same, sketch

RIGHT = Metric("right", "is right", lambda given, case: None)
ERRORS = Metric("errors", "is wrong", lambda given, case: None, more_is_better=False)
TOKENS = Metric("tokens-out", "output tokens", lambda given, case: None, "count", False)


def cases(count, **keys):
    return [
        Case(number, Conversation.of(f"question {number}"), "r", {name: of(number) for name, of in keys.items()})
        for number in range(count)
    ]


def arm(name, scores, metric="right", tokens=None):
    responses = [
        Response(
            f"{name} {number}", 5, None if tokens is None else tokens[number], error="too long" if score is None else ""
        )
        for number, score in enumerate(scores)
    ]
    return Arm(name, responses, {metric: scores, "tokens-out": tokens or [None] * len(scores)})


def test_fewer_groups_than_thirty_get_no_verdict_however_many_rows() -> None:
    asked = Questions(cases(300, table=lambda number: number // 50), group="table")
    found = compare(asked, [arm("a", [0.0] * 300), arm("b", [1.0] * 300)], [RIGHT])
    assert found.groups == 6
    assert found.measures[0].against[0].verdict == "too few groups"


def test_a_row_without_the_groups_key_belongs_to_itself() -> None:
    asked = Questions(cases(100, table=lambda number: None), group="table")
    assert compare(asked, [arm("a", [1.0] * 100)], [RIGHT]).groups == 100


def test_where_less_is_better_the_lower_arm_wins() -> None:
    first, second = [1.0] * 60 + [0.0] * 40, [0.0] * 100
    found = compare(Questions(cases(100)), [arm("a", first, "errors"), arm("b", second, "errors")], [ERRORS])
    assert (found.turned[0].better, found.turned[0].worse) == (60, 0)
    assert headline(found).startswith("b is better than a")
    back = compare(Questions(cases(100)), [arm("b", second, "errors"), arm("a", first, "errors")], [ERRORS])
    assert headline(back).startswith("No arm is better than b")


def test_arms_that_fail_are_said_to_and_break_nothing() -> None:
    rows = 50
    nothing = arm("gone", [None] * rows)
    found = compare(Questions(cases(rows)), [nothing, arm("b", [1.0] * rows, tokens=[3.0] * rows)], [RIGHT, TOKENS])
    assert any("gone answers no row; the first: too long" in warning for warning in found.warnings)
    assert found.unanswered == [50, 0]
    assert "no row in common" in headline(found)
    page(found)
    half = compare(
        Questions(cases(rows)), [arm("a", [1.0] * 25 + [None] * 25), arm("b", [None] * 25 + [1.0] * 25)], [RIGHT]
    )
    assert half.measures[0].against == [None]
    page(half)
    with pytest.raises(Invalid, match="no arm answers any row; the first: too long"):
        compare(Questions(cases(rows)), [nothing], [RIGHT])


def test_tokens_that_only_one_arm_knows_draw_no_broken_page() -> None:
    found = compare(Questions(cases(40)), [arm("a", [1.0] * 40), arm("b", [1.0] * 40, tokens=[5.0] * 40)], [RIGHT])
    assert "Output tokens" not in page(found)


def test_rows_that_changed_are_kept_of_every_arm_and_both_sides() -> None:
    rng = np.random.default_rng(1)
    rows = 800
    arms = [arm(name, (rng.random(rows) < 0.5).astype(float).tolist()) for name in "abc"]
    found = compare(Questions(cases(rows)), arms, [RIGHT])
    for name in "bc":
        gains = [row.change for row in found.changed if row.arm == name]
        assert (sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)) == (100, 100)


def test_rows_that_come_twice_and_values_that_are_not_shown_are_told() -> None:
    twice = [*cases(40, kind=lambda number: number), *cases(10, kind=lambda number: number)]
    found = compare(Questions(twice, ("kind",)), [arm("a", [1.0] * 50)], [RIGHT])
    assert any("10 of the rows are repeats" in warning for warning in found.warnings)
    assert any("kind has 40 values" in warning for warning in found.warnings)
    assert len(found.slices) == 12


def test_a_difference_without_spread_claims_no_detectable_size() -> None:
    found = compare(Questions(cases(40)), [arm("a", [0.5] * 40), arm("b", [0.5] * 40)], [RIGHT])
    assert found.measures[0].against[0].detectable is None
    assert points(None, "share") == "-"


def test_a_slice_has_the_paired_difference() -> None:
    asked = Questions(cases(80, kind=lambda number: "even" if number % 2 == 0 else "odd"), ("kind",))
    found = compare(asked, [arm("a", [0.0] * 80), arm("b", [float(number % 2) for number in range(80)])], [RIGHT])
    assert {one.value: one.differences[0].mean for one in found.slices} == {"even": 0.0, "odd": 1.0}


def test_most_of_the_same_rows_are_known_again_whatever_is_cut_or_said_before() -> None:
    whole = sketch(cases(1000))
    assert len(whole) == SKETCHED
    assert are_the_same(whole, sketch(cases(700)))
    assert are_the_same(sketch(cases(60)), sketch(cases(50)))
    others = [Case(number, Conversation.of(f"another {number}"), "r", {}) for number in range(1000)]
    assert not are_the_same(whole, sketch(others))
    said = [
        Case(one.line, Conversation(one.prompt.messages, "a system prompt"), one.reference, one.row)
        for one in cases(1000)
    ]
    assert sketch(said) == whole


def test_ties_go_to_the_first_arm_and_a_few_rows_of_equal_shares_are_not_certain() -> None:
    found = compare(Questions(cases(40)), [arm("a", [1.0] * 40), arm("b", [1.0] * 40)], [RIGHT])
    assert headline(found).startswith("No arm is better than a")
    few = compare(Questions(cases(5)), [arm("a", [0.3] * 5), arm("b", [0.3] * 5)], [RIGHT])
    figure, against = few.measures[0].arms[0], few.measures[0].against[0]
    assert figure.high - figure.low > 0.4
    assert against.difference.high - against.difference.low > 0.4


def test_rows_without_a_reference_and_without_an_answer_are_counted_aloud() -> None:
    some = [Case(one.line, one.prompt, None if one.line < 10 else "r", one.row) for one in cases(60)]
    scores = [None] * 10 + [1.0] * 50
    found = compare(Questions(some), [arm("a", scores), arm("b", scores)], [RIGHT])
    assert any("10 of 60 rows have no reference" in warning for warning in found.warnings)
    assert any("got no answer: a 10, b 10 (the first: too long)" in warning for warning in found.warnings)
