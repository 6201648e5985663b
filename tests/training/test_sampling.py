"""Rows that begin alike are drawn together; each is drawn once an epoch."""

import numpy as np
import pytest

from outcrop.datasets import Rows
from outcrop.training.prefixes import unique_tokens
from outcrop.training.sampling import Sampler


def rows_of(token_lists: list[list[int]]) -> Rows:
    starts = np.cumsum([0, *map(len, token_lists)])
    tokens = np.concatenate([np.array(one, np.int32) for one in token_lists])
    return Rows(tokens, np.ones(len(tokens), bool), starts)


def contexts(number: int, questions: int, length: int = 80, system: int = 20, seed: int = 0) -> Rows:
    """So many contexts with so many questions each, in random order."""
    draw = np.random.default_rng(seed)

    def words(count: int) -> list[int]:
        return [int(token) for token in draw.integers(0, 500, count)]

    prompt = words(system)
    made = [
        [*prompt, *context, *words(10)] for context in (words(length) for _ in range(number)) for _ in range(questions)
    ]
    return rows_of([made[place] for place in draw.permutation(len(made))])


@pytest.mark.parametrize("questions", [1, 2, 6, 12, 48])
@pytest.mark.parametrize("batch_rows", [4, 32])
def test_every_row_is_drawn_once_in_steps_of_the_size_asked_for(questions: int, batch_rows: int) -> None:
    rows = contexts(20, questions)
    sampler = Sampler(rows, batch_rows, seed=1)
    for epoch in range(2):
        steps = sampler.steps(epoch)
        assert sorted(row for step in steps for row in step) == list(range(len(rows)))
        assert [len(step) for step in steps[:-1]] == [batch_rows] * (len(steps) - 1)
        assert len(steps) == sampler.steps_per_epoch


def test_the_draw_is_a_function_of_seed_and_epoch() -> None:
    rows = contexts(20, 6)
    one, other = (Sampler(rows, 8, seed=1) for _ in range(2))
    assert one.steps(3) == other.steps(3)
    assert one.steps(3) != one.steps(4)
    assert one.steps(3) != Sampler(rows, 8, seed=2).steps(3)


def test_drawing_in_groups_computes_each_context_about_once() -> None:
    rows = contexts(40, 6)
    grouped, alone = Sampler(rows, 32, seed=0), Sampler(rows, 32, seed=0, groups=False)
    cost = [sum(unique_tokens(rows, step) for step in sampler.steps(0)) for sampler in (grouped, alone)]
    assert grouped.saving > 0.5
    assert cost[0] < 0.5 * cost[1]


def test_a_context_with_more_questions_than_a_step_takes_is_split_anew_each_epoch() -> None:
    rows = contexts(4, 48)
    sampler = Sampler(rows, 16, seed=0)
    pairs = [{frozenset(step) for step in sampler.steps(epoch)} for epoch in range(2)]
    assert not pairs[0] & pairs[1]
    assert max(unique_tokens(rows, step) for step in sampler.steps(0)) < 3 * (20 + 80) + 16 * 10


def test_where_nothing_but_the_system_prompt_is_shared_rows_are_drawn_one_by_one() -> None:
    rows = contexts(60, 1, system=200)
    sampler = Sampler(rows, 8, seed=0)
    assert sampler.saving < 0.05
    assert sampler.steps(0) == Sampler(rows, 8, seed=0, groups=False).steps(0)


def test_the_order_of_the_file_is_kept_when_nothing_is_shuffled() -> None:
    rows = contexts(5, 2)
    assert Sampler(rows, 4, seed=0, shuffles=False).steps(0) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
