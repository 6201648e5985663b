"""Rows that begin alike, as trees: what they share is laid out once. No torch here.

Rows are compared token by token after they were rendered whole, so where a tokenizer merges across the seam of context
and question, the shared part is a token shorter and the result the same. Shape legend: T tokens laid out, S supervised
positions.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from outcrop.datasets.rows import Rows

# A branching point costs every layer one more attention call. It is worth that when it saves this many tokens: at 64 a
# model of one million parameters was no slower than unshared, and larger models gain from fewer (docs/training.md).
LEAST_SAVED = 64
# Rows are put in order by so many tokens at a time.
AT_ONCE, ENDED = 64, -1
# Pages of a mapped file are given back after so many rows.
RELEASED_EVERY = 32


@dataclass(frozen=True)
class Node:
    """Consecutive tokens that belong to the same rows: T[begin:end], the first of them at `position` of its rows.

    Its descendants follow at once, up to `subtree_end`; they see it and nothing else outside their own branch.
    """

    begin: int
    end: int
    position: int
    subtree_end: int


@dataclass(frozen=True)
class Forest:
    """Rows laid out as trees, parents before children, depth first; without each row's last token, a target only.

    tokens     int64 [T]
    positions  int64 [T]    as in the row by itself
    sources    int64 [S]    places in T whose next token is learned, in rising order
    targets    int64 [S]    those next tokens
    counts     float32 [S]  how many of the rows learn that token at that place; shares of rows where rows have targets
    """

    tokens: np.ndarray
    positions: np.ndarray
    nodes: list[Node]
    sources: np.ndarray
    targets: np.ndarray
    counts: np.ndarray
    num_rows: int

    @classmethod
    def of(cls, rows: Rows, indices: Sequence[int], shares: bool = True) -> "Forest":
        """Lay rows out; without `shares` every row is a tree of one node."""
        return _Planting(rows, shares).plant(by_beginning(rows, indices) if shares else list(indices))


class _Planting:
    """A forest while it grows."""

    def __init__(self, rows: Rows, shares: bool) -> None:
        self._rows, self._shares = rows, shares
        self._tokens: list[np.ndarray] = []
        self._positions: list[np.ndarray] = []
        self._pairs: list[np.ndarray] = []  # [2, n]: places and their next tokens
        self._weights: list[np.ndarray] = []  # [n]: how much of each is learned
        self._nodes: list[Node] = []
        self._size = 0

    def plant(self, order: list[int]) -> Forest:
        if self._shares:
            self._grow(order, neighbours(self._rows, order), 0, np.zeros(0, np.int64))
        else:
            for row in order:
                self._grow([row], np.zeros(1, np.int64), 0, np.zeros(0, np.int64))
        pairs, inverse = np.unique(np.concatenate(self._pairs, 1), axis=1, return_inverse=True)
        counts = np.bincount(inverse.reshape(-1), np.concatenate(self._weights), pairs.shape[1])
        return Forest(
            np.concatenate(self._tokens), np.concatenate(self._positions), self._nodes,
            pairs[0], pairs[1], counts.astype(np.float32), len(order),
        )  # fmt: skip

    def _grow(self, order: list[int], shared: np.ndarray, depth: int, path: np.ndarray) -> None:
        """Branches for rows that share `depth` tokens, which lie at the places `path`."""
        for first, last, length in branches(shared, depth):
            if last - first == 1:
                length = self._rows.length(order[first]) - 1
            segment = self._rows.row(order[first])[0][depth:length].astype(np.int64)
            begin = self._size
            self._size += len(segment)
            grown = np.concatenate([path, np.arange(begin, self._size)])
            node = len(self._nodes)
            if len(segment):  # a row that another one contains adds only what it learns
                self._tokens.append(segment)
                self._positions.append(np.arange(depth, length))
                self._nodes.append(Node(begin, self._size, depth, self._size))
            for row in order[first:last]:
                self._learn(row, depth, length, grown)
            if last - first > 1:
                self._grow(order[first:last], shared[first:last], length, grown)
                self._nodes[node] = Node(begin, begin + len(segment), depth, self._size)

    def _learn(self, row: int, depth: int, length: int, path: np.ndarray) -> None:
        """Note what the row learns after positions depth to length - 1."""
        tokens, is_answer = self._rows.row(row)
        learned = np.flatnonzero(is_answer[depth + 1 : length + 1]) + depth
        targets = self._rows.targets
        if targets is None:
            self._pairs.append(np.stack([path[learned], tokens[learned + 1].astype(np.int64)]))
            self._weights.append(np.ones(len(learned)))
            return
        answers = self._rows.answer_starts[row] + np.cumsum(is_answer)[learned + 1] - 1
        wanted, weights = targets.tokens[answers].astype(np.int64), targets.weights[answers]
        self._pairs.append(np.stack([np.repeat(path[learned], wanted.shape[1]), wanted.reshape(-1)]))
        self._weights.append(weights.reshape(-1).astype(np.float64))


def branches(shared: np.ndarray, depth: int) -> Iterator[tuple[int, int, int]]:
    """Rows that go on together beyond `depth` tokens: first and last + 1 of each branch, and up to which token.

    `shared[i]` is how many tokens row i shares with the one before it. A branch of several rows saves LEAST_SAVED
    tokens or more; a row by itself comes with the length 0.
    """
    waiting = [(0, len(shared))]
    while waiting:
        first, last = waiting.pop()
        if last - first == 1:
            yield first, last, 0
            continue
        inner = shared[first + 1 : last]
        together = int(inner.min())
        if (together - depth) * (last - first - 1) >= LEAST_SAVED:
            yield first, last, together
            continue
        seams = [first, *(np.flatnonzero(inner == together) + first + 1).tolist(), last]
        waiting += reversed(list(pairwise(seams)))


def by_beginning(rows: Rows, indices: Iterable[int]) -> list[int]:
    """The rows in an order in which those that begin alike are neighbours.

    Sorted by so many tokens at a time, and only what is alike in them by the next ones: memory does not grow with the
    rows' length.
    """
    order: list[int] = []
    waiting: list[tuple[list[int], int]] = [(list(indices), 0)]
    while waiting:
        alike, depth = waiting.pop()
        if len(alike) == 1 or depth == ENDED:
            order += alike
            continue
        keys: dict[int, bytes] = {}
        for row in alike:
            keys[row] = rows.row(row)[0][depth : depth + AT_ONCE].tobytes()
            if len(keys) % RELEASED_EVERY == 0:
                rows.release()
        alike.sort(key=keys.__getitem__)
        runs = [(list(run), len(key) == 4 * AT_ONCE) for key, run in groupby(alike, keys.__getitem__)]
        waiting += [(run, depth + AT_ONCE if goes_on else ENDED) for run, goes_on in reversed(runs)]
    return order


def neighbours(rows: Rows, order: Sequence[int]) -> np.ndarray:
    """For each row how many tokens it shares with the one before it, the last token of either not counted: int64 [n]."""
    shared = np.zeros(len(order), np.int64)
    before = rows.row(order[0])[0] if order else None
    for place in range(1, len(order)):
        tokens = rows.row(order[place])[0]
        assert before is not None
        size = min(len(tokens), len(before)) - 1
        differs = tokens[:size] != before[:size]
        shared[place] = int(differs.argmax()) if differs.any() else size
        before = tokens
        if place % RELEASED_EVERY == 0:
            rows.release()
    return shared


def unique_tokens(rows: Rows, indices: Sequence[int]) -> int:
    """Tokens that a step over these rows computes when everything shared is computed once."""
    order = by_beginning(rows, indices)
    return sum(rows.length(row) - 1 for row in order) - int(neighbours(rows, order).sum())
