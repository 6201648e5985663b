"""What is told of a change in use, and what is left untold: chance, and what is too small to matter."""

import numpy as np
import pytest

from outcrop.evaluation.drift import Call, _fisher, changes, is_refusal

WORDS = "order parcel lamp invoice charge refund address courier account password screen cable battery remote filter".split()
OTHERS = "loan mortgage rate savings transfer currency branch teller".split()


def calls(rng, count, words=WORDS, longest=9, refusing=0.02, failing=0.01, tokens=20):
    found = []
    for _ in range(count):
        asked = " ".join(rng.choice(words, rng.integers(3, longest)))
        answered = "I'm sorry, but I cannot help with that." if rng.random() < refusing else "Here it is."
        found.append(
            Call(
                asked,
                answered,
                bool(rng.random() < failing),
                False,
                len(asked) // 4,
                int(rng.integers(tokens // 2, tokens * 2)),
            )
        )
    return found


def told(before, after, **more):
    return {change.name for change in changes(before, after, **more) if change.is_told}


def test_nothing_is_told_of_equal_windows_more_often_than_it_says() -> None:
    rng = np.random.default_rng(5)
    assert sum(bool(told(calls(rng, 150), calls(rng, 150))) for _ in range(20)) <= 1


@pytest.mark.parametrize(
    ("more", "name"),
    [({"longest": 20}, "input length"), ({"words": [*WORDS, *OTHERS]}, "vocabulary"), ({"refusing": 0.25}, "refusals"), ({"failing": 0.25}, "errors"),
     ({"tokens": 60}, "output tokens")],
)  # fmt: skip
def test_a_planted_change_is_told_by_its_name(more, name) -> None:
    rng = np.random.default_rng(6)
    assert name in told(calls(rng, 300), calls(rng, 300, **more))


def test_a_change_of_meaning_is_told_by_vectors() -> None:
    rng = np.random.default_rng(7)

    def embed(texts):
        return [[1.0, 3.0 * any(word in OTHERS for word in text.split()), 0.2 * len(text) / 40] for text in texts]

    assert "meaning" not in told(calls(rng, 100), calls(rng, 100), embed=embed)
    assert "meaning" in told(calls(rng, 100), calls(rng, 100, words=OTHERS), embed=embed)


def test_training_prompts_are_held_against_inputs_alone() -> None:
    rng = np.random.default_rng(8)
    prompts = [Call(call.asked) for call in calls(rng, 100)]
    assert {change.name for change in changes(prompts, calls(rng, 100))} == {"input length", "vocabulary"}
    assert changes(prompts[:10], calls(rng, 100)) == []


def test_fishers_test_is_the_known_one() -> None:
    assert _fisher(1, 10, 11, 14) == pytest.approx(0.002759, abs=1e-5)  # Fisher's tea and milk shape: R's fisher.test
    assert _fisher(0, 50, 0, 60) == 1.0


def test_refusals_are_known_by_how_they_begin() -> None:
    assert is_refusal("I'm sorry, but I can't help with that.")
    assert is_refusal("As an AI, I do not know.")
    assert not is_refusal("The refund is on its way.")
    assert not is_refusal("x" * 300 + " I cannot help")


def test_questions_without_words_and_texts_without_vectors_break_nothing() -> None:
    marks = [Call("?!") for _ in range(40)]
    assert not any(change.is_told for change in changes(marks, marks))
    assert not any(change.is_told for change in changes(marks, marks, embed=lambda texts: [None] * len(texts)))
