"""The adapters of an engine: rows of a pool, so that a batch may mix them, and the longest unused make room for others.

Shape legend: R rows of rank in the pool, r those of one adapter, T rows of a batch, I inputs, O outputs.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from outcrop.registry.adapters import read_adapter
from outcrop.serving.engines import kernels

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Place:
    """Where in the pool an adapter lies."""

    begin: int
    rank: int


class Pool:
    """One linear layer's part of every adapter: A [R, I], and B [R, O] with the scale in it."""

    def __init__(self, rows: int, inputs: int, outputs: int) -> None:
        self.A_RI = np.empty((rows, inputs), np.float32)
        self.B_RO = np.empty((rows, outputs), np.float32)

    def put(self, place: Place, pair: tuple[Tensor, Tensor] | None) -> None:
        """An adapter's A [r, I] and B [O, r]; a layer that it leaves alone gets nothing."""
        rows = slice(place.begin, place.begin + place.rank)
        if pair is None:
            self.A_RI[rows], self.B_RO[rows] = 0, 0
        else:
            self.A_RI[rows], self.B_RO[rows] = pair[0].numpy(), pair[1].numpy().T

    def add(self, x_TI: Array, out_TN: Array, column: int, rows: "AdapterRows") -> None:
        """out[:, column : column + O] += x A^T B, each row with its own adapter."""
        if rows.has_few:
            kernels.add_low_rank(x_TI, self.A_RI, self.B_RO, rows.begin_T, rows.rank_T, out_TN, column)
        x, out = torch.from_numpy(x_TI), torch.from_numpy(out_TN)[:, column : column + self.B_RO.shape[1]]
        for begin, end, place in rows.runs:
            A_rI = torch.from_numpy(self.A_RI[place.begin : place.begin + place.rank])
            B_rO = torch.from_numpy(self.B_RO[place.begin : place.begin + place.rank])
            out[begin:end].addmm_(x[begin:end] @ A_rI.T, B_rO)


class AdapterRows:
    """Which adapter each row of a batch has: `runs` are many rows in a line that share one, the others go one by one."""

    def __init__(self, places: list[Place | None]) -> None:
        self._places = places
        self.begin_T = np.array([place.begin if place else 0 for place in places], np.int64)
        self.rank_T = np.array([place.rank if place else 0 for place in places], np.int64)
        self.runs: list[tuple[int, int, Place]] = []
        begin = 0
        for end in range(1, len(places) + 1):
            if end == len(places) or places[end] is not places[begin]:
                place = places[begin]
                if place is not None and end - begin > kernels.FEW_ROWS:
                    self.runs.append((begin, end, place))
                    self.rank_T[begin:end] = 0
                begin = end
        self.has_few = bool(self.rank_T.any())

    def __len__(self) -> int:
        return len(self._places)

    def select(self, rows_U: Array) -> "AdapterRows":
        """The same for some of the rows."""
        return AdapterRows([self._places[row] for row in rows_U])


class Adapters:
    """The adapters that are loaded, in pools of a fixed number of rows for every layer that can be adapted."""

    def __init__(self, sizes: Mapping[str, tuple[int, int]], budget_bytes: int) -> None:
        self._sizes = dict(sizes)
        row_bytes = 4 * sum(inputs + outputs for outputs, inputs in sizes.values())
        self.rows = max(8, budget_bytes // max(1, row_bytes))
        self.pools = {name: Pool(self.rows, inputs, outputs) for name, (outputs, inputs) in sizes.items()}
        self._places: OrderedDict[str, Place] = OrderedDict()
        self._users: dict[str, int] = {}

    def __contains__(self, folder: str) -> bool:
        return folder in self._places

    def use(self, folder: str | None) -> Place | None:
        """Where the adapter lies, which stays there until `leave`. It must be loaded."""
        if folder is None:
            return None
        self._users[folder] = self._users.get(folder, 0) + 1
        self._places.move_to_end(folder)
        return self._places[folder]

    def leave(self, folder: str | None) -> None:
        """The counterpart of `use`."""
        if folder is not None:
            self._users[folder] -= 1

    def load(self, folder: str) -> bool:
        """Load an adapter in PEFT's layout if it is not; False when those in use leave no room now.

        Raises ValueError when it does not fit this base, or never fits the pool.
        """
        if folder in self._places:
            return True
        pairs = read_adapter(Path(folder))
        unknown = sorted(pairs.keys() - self._sizes.keys())
        if unknown:
            raise ValueError(f"the adapter does not fit this base: {unknown[:3]}")
        for name, (A_rI, B_Or) in pairs.items():
            if (B_Or.shape[0], A_rI.shape[1]) != self._sizes[name] or A_rI.shape[0] != B_Or.shape[1]:
                raise ValueError(f"the adapter does not fit this base: {name} has other sizes")
        rank = max(A_rI.shape[0] for A_rI, _ in pairs.values())
        if rank > self.rows:
            raise ValueError(
                f"an adapter of rank {rank} does not fit the memory for adapters ({self.rows} rows of rank)"
            )
        begin = self._room(rank)
        if begin is None:
            return False
        place = Place(begin, rank)
        for name, pool in self.pools.items():
            pool.put(place, _padded(pairs.get(name), rank))
        self._places[folder] = place
        return True

    def _room(self, rank: int) -> int | None:
        """Where so many rows are free, after the longest unused adapters have gone if need be."""
        while (begin := self._gap(rank)) is None:
            unused = next((folder for folder in self._places if not self._users.get(folder)), None)
            if unused is None:
                return None
            del self._places[unused]
        return begin

    def _gap(self, rank: int) -> int | None:
        begin = 0
        for place in sorted(self._places.values(), key=lambda place: place.begin):
            if place.begin - begin >= rank:
                return begin
            begin = place.begin + place.rank
        return begin if self.rows - begin >= rank else None


def _padded(pair: tuple[Tensor, Tensor] | None, rank: int) -> tuple[Tensor, Tensor] | None:
    """A pair of a smaller rank with zeros up to `rank`."""
    if pair is None or len(pair[0]) == rank:
        return pair
    A_rI, B_Or = pair
    missing = rank - len(A_rI)
    return torch.nn.functional.pad(A_rI, (0, 0, 0, missing)), torch.nn.functional.pad(B_Or, (0, missing))
