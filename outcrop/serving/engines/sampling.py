"""From logits to a token, and what is told of it. Shape legend: V vocabulary."""

from typing import Any

import numpy as np
import torch

from outcrop.serving.protocol import Generate

Array = np.ndarray[Any, Any]

# So many of the likeliest tokens are sorted at first; when they do not hold top_p of the chances, all are.
SORTED_FIRST = 256


def generator_for(request: Generate) -> torch.Generator | None:
    """Where a request's random draws come from; None when it draws nothing."""
    if request.temperature == 0:
        return None
    generator = torch.Generator()
    generator.seed() if request.seed is None else generator.manual_seed(request.seed)
    return generator


def sample(logits_V: Array, request: Generate, generator: torch.Generator) -> int:
    """A token drawn at the request's temperature from its top_k, then its top_p likeliest."""
    scaled = torch.from_numpy(logits_V) / request.temperature
    most = min(request.top_k or len(scaled), len(scaled))
    if request.top_p >= 1 and most == len(scaled):
        return int(torch.multinomial(scaled.softmax(-1), 1, generator=generator))
    for count in (min(most, SORTED_FIRST), most):
        kept, order = scaled.topk(count)
        total = scaled.logsumexp(-1) if most == len(scaled) else scaled.topk(most).values.logsumexp(-1)
        chances = (kept - total).exp()
        before = chances.cumsum(0) - chances
        if before[-1] + chances[-1] >= request.top_p or count == most:
            break
    chances = chances.masked_fill(before >= max(request.top_p, 1e-9), 0.0)
    return int(order[int(torch.multinomial(chances, 1, generator=generator))])


def likelihoods(logits_V: Array, token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """The token's log-probability (nats, at temperature 1), and the `count` likeliest tokens with theirs."""
    logits = torch.from_numpy(logits_V)
    total = float(logits.logsumexp(-1))
    best = logits.topk(count)
    return float(logits_V[token]) - total, [
        (int(one), float(logit) - total) for one, logit in zip(best.indices, best.values, strict=True)
    ]
