"""One optimizer step, and one evaluation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import nn
from transformers import PreTrainedModel

from outcrop.datasets.rows import Rows
from outcrop.errors import Diverged
from outcrop.training.batches import Microbatch, cut
from outcrop.training.model import answer_loss


@dataclass(frozen=True)
class StepResult:
    """What a step did; loss in nats per answer token, before the update."""

    loss: float
    answer_tokens: int
    gradient_norm: float


def step(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, microbatches: Sequence[Microbatch], max_norm: float
) -> StepResult:
    """One optimizer step over several microbatches, as if they were one batch.

    The loss is summed over answer tokens and divided by their number in the whole step. Averaging each microbatch
    first would let short answers weigh more, and the result would depend on how the batch was cut.

    Raises Diverged when loss or gradient is not finite; the weights are then still those of the previous step.
    """
    answer_tokens = sum(len(batch.targets_S) for batch in microbatches)
    loss = 0.0
    for batch in microbatches:
        share = answer_loss(model, batch) / answer_tokens
        share.backward()  # type: ignore[no-untyped-call]
        loss += share.item()
    trained = [weight for group in optimizer.param_groups for weight in group["params"]]
    norm = nn.utils.clip_grad_norm_(trained, max_norm).item()
    if not (isfinite(loss) and isfinite(norm)):
        raise Diverged(f"loss {loss}, gradient norm {norm}; try a lower learningRate or learningRateMultiplier")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(loss, answer_tokens, norm)


def evaluate(model: PreTrainedModel, rows: Rows, most_tokens: int) -> float:
    """Mean loss (nats) per answer token over all rows; dropout off, no gradients."""
    model.eval()
    total, answer_tokens = 0.0, 0
    with torch.no_grad():
        for batch in _all(rows, most_tokens):
            total += answer_loss(model, batch).item()
            answer_tokens += len(batch.targets_S)
    model.train()
    return total / answer_tokens


def _all(rows: Rows, most_tokens: int) -> Iterable[Microbatch]:
    return cut(rows, range(len(rows)), most_tokens)
