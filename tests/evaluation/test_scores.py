import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from outcrop.errors import Invalid
from outcrop.evaluation import contains_values, difference, exact_json, fits_schema, measure, tatqa

DATA = Path(__file__).parents[3] / "shared/data"


@pytest.mark.skipif(not DATA.exists(), reason="the shared data is not beside this checkout")
def test_tatqas_scores_are_the_official_ones_case_by_case() -> None:
    wrong = []
    for line in (DATA / "tatqa_scorer_cases.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        gold = case["gold"]
        found = tatqa.score(gold["answer_type"], gold["answer"], gold["scale"], case["prediction"], case["pred_scale"])
        if (found.exact, found.f1, found.scale) != (case["em"], case["f1"], case["scale_em"]):
            wrong.append((case["id"], case["kind"], gold, case["prediction"], found, case["em"], case["f1"]))
    assert wrong == []


@pytest.mark.skipif(not DATA.exists(), reason="the shared data is not beside this checkout")
def test_tatqas_totals_are_the_official_ones_for_every_kind_of_answer() -> None:
    predictions = json.loads((DATA / "tatqa/sample_prediction_on_dev.json").read_text(encoding="utf-8"))
    official = json.loads((DATA / "tatqa/sample_prediction_official_scores.json").read_text(encoding="utf-8"))
    with gzip.open(DATA / "tatqa/tatqa_dataset_dev.json.gz", "rt", encoding="utf-8") as file:
        questions = [question for context in json.load(file) for question in context["questions"]]
    scores: dict[str, list[tatqa.Score]] = {}
    for question in questions:
        prediction, scale = predictions.get(question["uid"], (None, ""))
        found = tatqa.score(question["answer_type"], question["answer"], question["scale"], prediction, scale)
        scores.setdefault(f"{question['answer_type']}/{question['answer_from']}", []).append(found)
    every = [one for some in scores.values() for one in some]
    means = [round(100 * float(np.mean([getattr(one, name) for one in every])), 2) for name in ("exact", "f1", "scale")]
    assert means == [official["exact_match"], official["f1"], official["scale"]] == [45.92, 58.88, 90.95]
    for kind, wanted in official["detail"].items():
        assert np.mean([one.exact for one in scores[kind]]) == pytest.approx(wanted["em"], abs=1e-6)
        assert np.mean([one.f1 for one in scores[kind]]) == pytest.approx(wanted["f1"], abs=1e-6)


def test_json_is_compared_by_its_values() -> None:
    wanted = {"a": "1", "b": "x"}
    assert exact_json('{"b": "x", "a": "1"}', wanted) == 1.0
    assert exact_json('{"b": "x"}', wanted) == 0.0
    assert exact_json("b x", wanted) == 0.0
    assert contains_values("it is X and 1", wanted) == 1.0
    assert fits_schema('{"a": "z", "b": "x"}', {"a": None, "b": ["x", "y"]}) == 1.0
    assert fits_schema('{"a": "z", "b": "w"}', {"a": None, "b": ["x", "y"]}) == 0.0
    assert fits_schema('{"a": "z"}', {"a": None, "b": ["x"]}) == 0.0


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(200):
        measured = measure(list((rng.random(80) < 0.3).astype(float)), seed)
        inside += measured.low <= 0.3 <= measured.high
    assert 180 <= inside <= 200


def test_a_perfect_score_is_not_reported_as_certain() -> None:
    measured = measure([1.0] * 200)
    assert (measured.mean, measured.high) == pytest.approx((1.0, 1.0))
    assert measured.low == pytest.approx(0.981, abs=0.001)


def test_a_paired_difference_is_narrower_than_an_unpaired_one() -> None:
    rng = np.random.default_rng(2)
    hard = rng.random(200)
    first, second = list(hard), list(hard + 0.1)
    change = difference(first, second)
    assert change.mean == pytest.approx(0.1)
    assert change.high - change.low < 1e-9


def test_an_example_without_an_answer_is_no_zero() -> None:
    measured = measure([1.0, None, 1.0])
    assert (measured.mean, measured.counted, measured.failed) == (1.0, 2, 1)
    with pytest.raises(Invalid, match="nothing to measure"):
        measure([None, None])
