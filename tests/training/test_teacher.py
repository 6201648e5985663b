"""Learning a teacher's distribution: the same loss and gradients as written out plainly, shared or not, by either way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from outcrop.datasets.rows import Rows, Targets
from outcrop.training.batches import Microbatch, cut
from outcrop.training.model import Autograd, Trainee
from outcrop.training.plan import Settings
from outcrop.training.teacher import MOST, write_targets
from tests.models import make_llama

SIZES = ((12, 4), (30, 9), (7, 3), (80, 12), (81, 5))


def rows_of(vocabulary: int, shared: int = 0) -> Rows:
    draw = np.random.default_rng(1)
    beginning = draw.integers(5, vocabulary, shared)
    tokens, masks, starts = [], [], [0]
    for length, answer in SIZES:
        row = np.concatenate([beginning, draw.integers(5, vocabulary, length)])
        mask = np.zeros(len(row), bool)
        mask[-answer:] = True
        tokens.append(row)
        masks.append(mask)
        starts.append(starts[-1] + len(row))
    return Rows(np.concatenate(tokens).astype(np.int32), np.concatenate(masks), np.asarray(starts, np.int64))


def plain_loss(student: Path, teacher: Path, rows: Rows) -> float:
    """Row by row, with transformers alone: cross-entropy with the teacher's MOST likeliest tokens, renormalized."""
    models = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for folder in (student, teacher)]
    total = 0.0
    with torch.no_grad():
        for tokens, mask in rows:
            ids = torch.from_numpy(tokens.astype(np.int64))[None]
            mine, wanted = (model(ids).logits[0, :-1][torch.from_numpy(mask[1:].copy())] for model in models)
            top = wanted.topk(min(MOST, wanted.shape[-1]), -1)
            log_likelihood = mine.log_softmax(-1).gather(-1, top.indices)
            total -= float((top.values.softmax(-1) * log_likelihood).sum())
    return total


@pytest.mark.parametrize("shared", [0, 90], ids=["apart", "in trees"])
@pytest.mark.parametrize("by_autograd", [False, True], ids=["written out", "by autograd"])
def test_the_loss_is_the_cross_entropy_with_the_teacher(tmp_path: Path, by_autograd: bool, shared: int) -> None:
    student, teacher = make_llama(tmp_path / "student", seed=1), make_llama(tmp_path / "teacher", seed=2)
    rows = rows_of(280, shared)
    write_targets(rows, teacher, None, tmp_path / "targets")
    taught = replace(rows, targets=Targets.read(tmp_path / "targets"))
    trainee = Trainee(student, Settings(method="full"), taught.longest())
    if by_autograd:
        trainee.learner = Autograd(trainee.model, torch.device("cpu"))
    batches = list(cut(taught, range(len(taught)), 10_000, True))
    assert sum(batch.answer_tokens for batch in batches) == int(rows.is_answer.sum())
    loss = sum(trainee.learner.loss(batch) for batch in batches)
    assert loss == pytest.approx(plain_loss(student, teacher, rows), rel=1e-4)


def test_targets_that_are_the_answers_change_nothing(tmp_path: Path) -> None:
    student = make_llama(tmp_path / "student", seed=1)
    rows = rows_of(280, 90)
    answers = rows.tokens[rows.is_answer][:, None]
    taught = replace(rows, targets=Targets(answers, np.ones(answers.shape, np.float32)))
    gradients = []
    for one in (rows, taught):
        trainee = Trainee(student, Settings(method="full"), one.longest())
        trainee.flat.zero_grad()
        loss = trainee.learner.learn(Microbatch.of(one, range(len(one))), 1.0)
        gradients.append((loss, torch.cat([gradient.clone() for gradient in trainee.flat.gradients()])))
    assert gradients[0][0] == gradients[1][0]
    assert torch.equal(gradients[0][1], gradients[1][1])


def test_a_student_that_is_the_teacher_has_nothing_to_learn(tmp_path: Path) -> None:
    model = make_llama(tmp_path / "model", seed=3)
    rows = rows_of(280)
    write_targets(rows, model, None, tmp_path / "targets")
    taught = replace(rows, targets=Targets.read(tmp_path / "targets"))
    trainee = Trainee(model, Settings(method="full"), taught.longest())
    sizes = []
    for one in (taught, rows):
        trainee.flat.zero_grad()
        trainee.learner.learn(Microbatch.of(one, range(len(one))), 1.0)
        sizes.append(float(torch.stack([gradient.norm() for gradient in trainee.flat.gradients()]).norm()))
    assert sizes[0] < 0.5 * sizes[1]  # not nothing: only the likeliest tokens are kept
