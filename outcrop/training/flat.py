"""Trained weights as one long tensor each for decayed and undecayed: an optimizer step, a norm or a copy is one call."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FlatParameters:
    """Parameters laid end to end (FSDP's term); each parameter and its gradient become views of it.

    `groups` are lists of parameters, each with its weight decay. Parameters that are read as one matrix must be
    neighbours in their list.
    """

    def __init__(self, groups: Sequence[tuple[Sequence[nn.Parameter], float]]) -> None:
        self.groups: list[tuple[nn.Parameter, float]] = []
        self._places: dict[int, tuple[nn.Parameter, int]] = {}
        for parameters, decay in groups:
            if not parameters:
                continue
            flat = nn.Parameter(torch.cat([one.detach().flatten() for one in parameters]))
            flat.grad = torch.zeros_like(flat)
            begin = 0
            for one in parameters:
                one.data = flat.data[begin : begin + one.numel()].view_as(one)
                one.grad = flat.grad[begin : begin + one.numel()].view_as(one)
                self._places[id(one)] = (flat, begin)
                begin += one.numel()
            self.groups.append((flat, decay))

    def __contains__(self, parameter: object) -> bool:
        return id(parameter) in self._places

    def stacked(self, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, Tensor]:
        """Neighbouring matrices [O1, I], [O2, I], ... and their gradients as one [O1 + O2 + ..., I] each."""
        flat, begin = self._places[id(parameters[0])]
        end = begin
        for one in parameters:
            assert self._places[id(one)] == (flat, end), "these parameters are not neighbours"
            end += one.numel()
        assert flat.grad is not None
        shape = (-1, *parameters[0].shape[1:])
        return flat.data[begin:end].view(shape), flat.grad[begin:end].view(shape)

    def optimizer(self, learning_rate: float, beta2: float) -> torch.optim.AdamW:
        """AdamW over the flat tensors."""
        return torch.optim.AdamW(
            [{"params": [flat], "weight_decay": decay} for flat, decay in self.groups],
            lr=learning_rate, betas=(0.9, beta2), fused=True,
        )  # fmt: skip

    def zero_grad(self) -> None:
        """Gradients to nothing, in place: the views stay."""
        for flat, _ in self.groups:
            assert flat.grad is not None
            flat.grad.zero_()

    def gradients(self) -> list[Tensor]:
        """The gradients, one tensor per group."""
        return [flat.grad for flat, _ in self.groups if flat.grad is not None]
