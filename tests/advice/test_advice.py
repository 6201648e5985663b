"""The parts of an advice: what is retrieved, what a curve may say, what can be left out, and what follows from the figures."""

import numpy as np
import pytest

from outcrop.advice import (
    Option,
    Reasons,
    Retriever,
    Ways,
    advise,
    common_parts,
    fit,
    known,
    probes,
    shape_share,
    shapes_of,
    with_passages,
    without_parts,
)
from outcrop.evaluation import Case, measure
from outcrop.evaluation.comparison import Figure
from outcrop.rendering import Conversation


def case(prompt, reference="r", system=None):
    return Case(1, Conversation.of(prompt, system=system), reference)


def test_the_passage_that_answers_is_found_by_its_rare_words() -> None:
    passages = [
        f"The {animal} of {name} is quiet."
        for name, animal in zip("Anna Tom Maria".split(), "dog cat owl".split(), strict=True)
    ]
    retriever = Retriever([*passages, "The office opens at nine."])
    assert retriever.find("Which animal does Tom have?", 1) == [passages[1]]
    assert retriever.find("xyzzy", 3) == []
    assert with_passages(case("Who is Maria?"), retriever, 1).question == f"{passages[2]}\n\nWho is Maria?"


def test_a_curve_goes_on_as_it_began_and_says_how_little_is_known() -> None:
    rng = np.random.default_rng(1)
    sizes = [100, 200, 400, 800]
    truth = [1 - 0.05 - 4 * size**-0.5 for size in (*sizes, 1600)]
    draws = rng.random(4000)
    curve = fit(sizes, [(draws < share).astype(float).tolist() for share in truth[:4]])
    further = curve.points[4]
    assert (further.rows, further.is_guess) == (1600, True)
    assert further.low <= truth[4] <= further.high
    assert further.mean == pytest.approx(truth[4], abs=0.03)
    assert "worth getting" in curve.says
    flat = fit(sizes, [[1.0] * 95 + [0.0] * 5] * 4)
    assert flat.points[4].mean == pytest.approx(0.95, abs=0.01)
    assert "enough" in flat.says
    steps = fit(sizes, [[0.0] * 200, [0.0] * 200, [1.0] * 160 + [0.0] * 40, [1.0] * 195 + [0.0] * 5])
    assert len(steps.points) == 4
    assert "no power law" in steps.says
    assert fit([50], [[1.0]]).says.startswith("too few")


def test_terms_are_probed_where_the_prompt_does_not_tell_them() -> None:
    cases = [
        case(f"Where is {name}?", f"{name} is in {city}.")
        for name, city in zip("Annabel Thomas Mariam Petra".split(), "Paris London Berlin Madrid".split(), strict=True)
    ]
    found = probes(cases)
    assert {probe.term for probe in found} == {"Paris", "London", "Berlin", "Madrid"}
    for probe in found:
        true, false = probe.true.messages[-1].text, probe.false.messages[-1].text
        assert probe.term in true
        assert probe.term not in false
        assert len(true.split()) == len(false.split())
    assert known([1.0] * 5, [2.0] * 5) is None
    assert known([1.0] * 20, [2.0] * 20).verdict == "known"
    assert known([1.0, 2.0] * 10, [2.0, 1.0] * 10).verdict == "not known to the base"


def test_what_all_prompts_say_alike_is_found_and_left_out() -> None:
    cases = [
        case(f"Classify the ticket below. {text} Answer with one word only.", system="You sort.")
        for text in ("My fan died.", "No parcel came.")
    ]
    parts = common_parts(cases)
    assert (parts.system, parts.begin, parts.end) == (
        "You sort.",
        "Classify the ticket below. ",
        " Answer with one word only.",
    )
    short = without_parts(cases[0], parts)
    assert (short.question, short.prompt.system) == ("My fan died.", None)
    assert not common_parts([case("abc"), case("abd")]).are_some
    assert not common_parts([case("the same question")] * 3).begin


def test_a_form_is_told_from_what_is_said_in_it() -> None:
    shapes = shapes_of(['{"a": "x", "b": 1}', '{"a": "y", "b": 2}'])
    assert shape_share(['{"b": 3, "a": "long text"}', '{"a": 1}', "x"], shapes) == [1.0, 0.0, 0.0]
    shapes = shapes_of(["P1/DEF [A570] FAN", "P2/ACC [B1] LAMP"])
    assert shape_share(["P3/RET [C99] OVEN", "It is a fan."], shapes) == [1.0, 0.0]
    shapes = shapes_of(["north", "south"] * 10)
    assert shape_share(["north", "east"], shapes) == [1.0, 0.0]


RNG = np.random.default_rng(3)


def scored(share, count=200):
    return (RNG.random(count) < share).astype(float).tolist()


DECIDED = [
    ({"prompt": 0.97, "few-shot": 0.97, "tune": 0.98}, 0.0, "prompt"),
    ({"prompt": 0.1, "few-shot": 0.95, "tune": 0.97}, 0.0, "few-shot"),
    ({"prompt": 0.0, "few-shot": 0.1, "retrieval": 0.93, "tune": 0.1, "tune + retrieval": 0.95}, 0.0, "retrieval"),
    ({"prompt": 0.1, "few-shot": 0.3, "tune": 0.9, "tune + few-shot": 0.9}, 0.05, "tune"),
    ({"prompt": 0.1, "few-shot": 0.3, "tune": 0.7, "tune + few-shot": 0.9}, 0.05, "tune + few-shot"),
    ({"prompt": 0.0, "few-shot": 0.2, "tune": 0.25}, 0.26, "nothing"),
    ({"prompt": 0.2, "few-shot": 0.2, "tune": 0.21}, 0.0, "nothing"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "constant", "choice"), DECIDED, ids=[f"{choice}-{place}" for place, (_, _, choice) in enumerate(DECIDED)]
)
def test_the_recommendation_follows_from_the_figures(shares, constant, choice) -> None:
    scores = {name: scored(share) for name, share in shares.items()}
    options = [
        Option(
            name=name,
            figure=Figure.of(measure(scores[name])),
            input_tokens=10,
            output_tokens=5,
            seconds_a_request=0.01 * (place + 1),
            training_s=60.0 * ("tune" in name),
        )
        for place, name in enumerate(scores)
    ]
    found = advise(
        Ways(scores, scored(constant)),
        options,
        "exact",
        {"test": 200, "train": 400, "dev": 90, "watch": 60},
        Reasons(),
        None,
        None,
    )
    assert found.choice == choice
    assert ("Do not tune" in found.sentence) is (choice in ("prompt", "few-shot", "retrieval"))
    assert len(found.table) == 4
    assert all(row.measured for row in found.table)


def test_a_majority_of_nearly_all_is_no_floor_that_nothing_can_pass() -> None:
    scores = {"prompt": [1.0] * 396 + [0.0] * 4, "tune": [1.0] * 396 + [0.0] * 4}
    options = [
        Option(name=name, figure=Figure.of(measure(of)), input_tokens=1, output_tokens=1, seconds_a_request=0.1)
        for name, of in scores.items()
    ]
    rows = {"test": 400, "train": 400, "dev": 90, "watch": 60}
    constant = [1.0] * 384 + [0.0] * 16
    assert advise(Ways(scores, constant), options, "label", rows, Reasons(), None, None).choice == "prompt"


def test_terms_of_any_alphabet_are_exchanged() -> None:
    words = "Überweisung Kündigung Rücksendung Größentausch Prüfung Öffnungszeit".split()
    found = probes([case(f"frage {number}", f"Es geht um {word}.") for number, word in enumerate(words)])
    assert len(found) == len(words)
    assert all(probe.true != probe.false for probe in found)


def test_a_small_gain_is_not_worth_a_training_unless_one_says_so() -> None:
    first = [1.0] * 180 + [0.0] * 20
    second = [1.0] * 188 + [0.0] * 12
    scores = {"prompt": first, "tune": second}
    options = [
        Option(name=name, figure=Figure.of(measure(of)), input_tokens=1, output_tokens=1, seconds_a_request=0.1)
        for name, of in scores.items()
    ]
    rows = {"test": 200, "train": 400, "dev": 90, "watch": 60}
    assert advise(Ways(scores, [0.0] * 200), options, "exact", rows, Reasons(), None, None).choice == "prompt"
    assert advise(Ways(scores, [0.0] * 200, worth=0.02), options, "exact", rows, Reasons(), None, None).choice == "tune"
