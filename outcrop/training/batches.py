"""Rows -> microbatches of trees, without padding.

Shape legend: T tokens laid end to end, U used places (where something is learned), S supervised pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from outcrop.datasets.rows import Rows
from outcrop.training.attention import TreeAttention
from outcrop.training.prefixes import Forest, by_beginning, neighbours

# Trees are worth their calls when they save this part of a step's tokens.
LEAST_SAVING = 0.05


@dataclass(frozen=True)
class Microbatch:
    """Rows that go through the model at once.

    tokens_1T     int64 [1, T]
    positions_1T  int64 [1, T]  as in each row by itself
    places_U      int64 [U]     places in T whose next token is learned, rising
    pair_rows_S   int64 [S]     index into U: several rows may learn different tokens at one place
    targets_S     int64 [S]     the tokens learned there
    counts_S      float32 [S]   by how many rows, or by what share of one
    """

    tokens_1T: torch.Tensor
    positions_1T: torch.Tensor
    attention: TreeAttention
    places_U: torch.Tensor
    pair_rows_S: torch.Tensor
    targets_S: torch.Tensor
    counts_S: torch.Tensor
    answer_tokens: int
    num_rows: int

    @classmethod
    def of(cls, rows: Rows, indices: Sequence[int], shares: bool = True) -> "Microbatch":
        """Lay rows out; with `shares` what they begin with alike is there once."""
        forest = Forest.of(rows, indices, shares)
        places, pair_rows = np.unique(forest.sources, return_inverse=True)
        return cls(
            torch.from_numpy(forest.tokens)[None], torch.from_numpy(forest.positions)[None],
            TreeAttention(forest.nodes, len(forest.tokens)), torch.from_numpy(places), torch.from_numpy(pair_rows),
            torch.from_numpy(forest.targets), torch.from_numpy(forest.counts), round(forest.counts.sum(dtype=np.float64)), forest.num_rows,
        )  # fmt: skip

    def to(self, device: torch.device) -> "Microbatch":
        """The same on a device; the attention's layout stays where it is."""
        moved = {
            name: getattr(self, name).to(device)
            for name in ("tokens_1T", "positions_1T", "places_U", "pair_rows_S", "targets_S", "counts_S")
        }
        return replace(self, **moved)

    @cached_property
    def last_attention(self) -> TreeAttention:
        """The attention of a layer of which only the used places are needed."""
        return self.attention.from_first_use(self.places_U.tolist())

    def pairs_before(self, place: int) -> int:
        """How many pairs belong to the first so many used places."""
        return int(torch.searchsorted(self.pair_rows_S, place))


def cut_among(rows: Rows, indices: Sequence[int], most_tokens: int, shares: bool, processes: int) -> list[Microbatch]:
    """The same, in at least as many microbatches as there are processes, if there are as many rows."""
    whole = list(cut(rows, indices, most_tokens, shares))
    while len(whole) < min(processes, len(indices)):
        most_tokens = max(batch.attention.num_tokens for batch in whole) // 2
        whole = list(cut(rows, indices, most_tokens, shares))
    return whole


def cut(rows: Rows, indices: Sequence[int], most_tokens: int, shares: bool = True) -> Iterator[Microbatch]:
    """Rows as microbatches of at most that many tokens, counted after sharing; one row at least.

    The loss does not depend on the cut. Rows that begin alike stay neighbours, else rows of like length do.
    """
    order = by_beginning(rows, indices) if shares else []
    shared = neighbours(rows, order) if shares else np.zeros(len(indices), np.int64)
    lengths = np.array([rows.length(row) for row in order], np.int64)
    if shared.sum() < LEAST_SAVING * lengths.sum() or not shares:
        shares, order, shared = False, sorted(indices, key=rows.length), np.zeros(len(indices), np.int64)
    chunk: list[int] = []
    tokens = 0
    for row, begins_alike in zip(order, shared.tolist(), strict=True):
        if chunk and tokens + rows.length(row) - 1 - begins_alike > most_tokens:
            yield Microbatch.of(rows, chunk, shares)
            chunk, tokens = [], 0
        tokens += rows.length(row) - 1 - (begins_alike if chunk else 0)
        chunk.append(row)
    if chunk:
        yield Microbatch.of(rows, chunk, shares)
