"""One optimizer step, and one evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch

from outcrop.datasets.rows import Rows
from outcrop.errors import Diverged
from outcrop.training.batches import Microbatch, cut
from outcrop.training.model import Trainee


@dataclass(frozen=True)
class StepResult:
    """What a step did; loss in nats per answer token, before the update. `tokens` are counted after sharing."""

    loss: float
    answer_tokens: int
    gradient_norm: float
    tokens: int


def step(
    trainee: Trainee, optimizer: torch.optim.Optimizer, microbatches: Sequence[Microbatch], max_norm: float
) -> StepResult:
    """One optimizer step over several microbatches, as if they were one batch; each process of a group learns from some.

    The loss is summed over answer tokens and divided by their number in the whole step. Averaging each microbatch
    first would let short answers weigh more, and the result would depend on how the batch was cut.

    Raises Diverged when loss or gradient is not finite; the weights are then still those of the previous step.
    """
    answer_tokens = sum(batch.answer_tokens for batch in microbatches)
    trainee.flat.zero_grad()
    mine = trainee.group.share([batch.attention.num_tokens for batch in microbatches])
    loss = trainee.group.total(sum(trainee.learner.learn(microbatches[place], 1 / answer_tokens) for place in mine))
    loss /= answer_tokens
    gradients = trainee.flat.gradients()
    trainee.group.add_up(gradients)
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
    if not (isfinite(loss) and isfinite(norm)):
        raise Diverged(f"loss {loss}, gradient norm {norm}; try a lower learningRate or learningRateMultiplier")
    if norm > max_norm:
        for gradient in gradients:
            gradient.mul_(max_norm / norm)
    optimizer.step()
    trainee.learner.refresh()
    return StepResult(loss, answer_tokens, norm, sum(batch.attention.num_tokens for batch in microbatches))


def evaluate(trainee: Trainee, rows: Rows, most_tokens: int) -> float:
    """Mean loss (nats) per answer token over all rows; dropout off, no gradients."""
    total, answer_tokens = 0.0, 0
    for place, batch in enumerate(cut(rows, range(len(rows)), most_tokens, trainee.shares)):
        if place % trainee.group.size == trainee.group.rank:
            total += trainee.learner.loss(batch)
        answer_tokens += batch.answer_tokens
    return trainee.group.total(total) / answer_tokens
