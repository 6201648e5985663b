"""The processes of one run: each learns from its part of every step, and gradients are summed (data parallel).

Every process holds all weights, the whole optimizer and all rows (mapped), and comes to the same numbers; the first one
alone writes. Processes meet at a file of the run's directory, or as torchrun tells them to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from outcrop.errors import Invalid
from outcrop.training.plan import MEETING

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """This process's place in the run."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, directory: Path, device: str, rank: int = 0, size: int = 1) -> "Group":
        """Meet the others, if there are any. Raises Invalid for GPUs that are not there."""
        if device == "cuda" and not torch.cuda.is_available():
            raise Invalid("training_device is cuda, but PyTorch sees no GPU here; set it to cpu")
        backend = "nccl" if device == "cuda" else "gloo"
        if device == "cuda":
            torch.cuda.set_device(rank % torch.cuda.device_count())
        if dist.is_torchelastic_launched():
            dist.init_process_group(backend)
            if device == "cuda":
                torch.cuda.set_device(dist.get_node_local_rank())
            return cls(dist.get_rank(), dist.get_world_size())
        if size > 1:
            meeting = f"file://{(directory / MEETING).absolute()}"
            dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=size)
        return cls(rank, size)

    def leave(self) -> None:
        """Part from the others; nothing is summed after this."""
        if self.size > 1:
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its sum over all processes, the same bits in every one."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def total(self, value: float) -> float:
        """The sum of everyone's value."""
        if self.size == 1:
            return value
        every = torch.tensor([value], dtype=torch.float64)
        if dist.get_backend() == "nccl":
            every = every.cuda()
        dist.all_reduce(every)
        return float(every)

    def heed(self, value: T) -> T:
        """The first process's value."""
        if self.size == 1:
            return value
        said = [value]
        dist.broadcast_object_list(said, src=0)
        return said[0]

    def share(self, costs: Sequence[float]) -> list[int]:
        """Which of several pieces of work are this process's: the dearest first, each to whoever has least."""
        loads = [0.0] * self.size
        mine = []
        for piece in sorted(range(len(costs)), key=lambda piece: -costs[piece]):
            taker = loads.index(min(loads))
            loads[taker] += costs[piece]
            if taker == self.rank:
                mine.append(piece)
        return sorted(mine)
