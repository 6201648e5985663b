"""Rows -> microbatches without padding.

Shape legend: R rows, L longest row, T tokens laid end to end, S supervised positions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from outcrop.datasets.rows import Rows


@dataclass(frozen=True)
class Grid:
    """Rows of like length, laid out for one attention call; they are neighbours in T.

    grid_RL  int64  index into T of each row's tokens; beyond a row's end any index (causal attention never looks there)
    place_t  int64  index into the flattened grid of each of these rows' tokens
    """

    grid_RL: torch.Tensor
    place_t: torch.Tensor


# A grid takes rows until its padding would exceed a fifth: below that a further call costs more than it saves.
MOST_PADDING = 0.2


def lay_out(lengths: Sequence[int]) -> list[Grid]:
    """Where each row lies in T, in grids of like length; attention uses it to keep rows apart."""
    grids: list[Grid] = []
    begin, first = 0, 0
    while first < len(lengths):
        last, real = first, 0
        longest = 0
        while last < len(lengths):
            taller = max(longest, lengths[last])
            if taller * (last - first + 1) > (real + lengths[last]) / (1 - MOST_PADDING):
                break
            longest, real, last = taller, real + lengths[last], last + 1
        sizes = torch.tensor(lengths[first:last])
        starts = sizes.cumsum(0) - sizes + begin
        offsets = torch.arange(longest)
        grid_RL = (starts[:, None] + offsets).clamp_(max=begin + real - 1)
        grids.append(Grid(grid_RL, (offsets < sizes[:, None]).flatten().nonzero().squeeze(1)))
        begin, first = begin + real, last
    return grids


@dataclass(frozen=True)
class Microbatch:
    """Rows that go through the model at once.

    tokens_1T     int64 [1, T]  rows end to end, without their last token, which is only ever a target
    positions_1T  int64 [1, T]  restarting at 0 in each row
    sources_S     int64 [S]     positions in T whose next token is learned
    targets_S     int64 [S]     those next tokens
    """

    tokens_1T: torch.Tensor
    positions_1T: torch.Tensor
    grids: list[Grid]
    sources_S: torch.Tensor
    targets_S: torch.Tensor

    @classmethod
    def of(cls, rows: Rows, indices: Sequence[int]) -> "Microbatch":
        tokens, positions, sources, targets, lengths = [], [], [], [], []
        begin = 0
        for index in indices:
            ids, is_answer = rows.row(index)
            ids_T = torch.tensor(ids, dtype=torch.int64)
            learned = torch.tensor(is_answer[1:]).nonzero().squeeze(1)
            tokens.append(ids_T[:-1])
            positions.append(torch.arange(len(ids_T) - 1))
            sources.append(learned + begin)
            targets.append(ids_T[1:][learned])
            lengths.append(len(ids_T) - 1)
            begin += len(ids_T) - 1
        return cls(
            torch.cat(tokens)[None],
            torch.cat(positions)[None],
            lay_out(lengths),
            torch.cat(sources),
            torch.cat(targets),
        )


def cut(rows: Rows, indices: Sequence[int], most_tokens: int) -> Iterator[Microbatch]:
    """The rows of one optimizer step as microbatches of at most that many tokens (one row at least).

    Rows of like length go together, so that attention wastes little; the loss does not depend on the cut.
    """
    chunk: list[int] = []
    for index in sorted(indices, key=rows.length):
        if chunk and (len(chunk) + 1) * rows.length(index) > most_tokens:
            yield Microbatch.of(rows, chunk)
            chunk = []
        chunk.append(index)
    if chunk:
        yield Microbatch.of(rows, chunk)


def order_of(epoch: int, num_rows: int, seed: int, shuffles: bool) -> list[int]:
    """The order of rows in an epoch: a function of seed and epoch alone, so that it can be found again."""
    if not shuffles:
        return list(range(num_rows))
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return list(torch.randperm(num_rows, generator=generator).tolist())
