"""Which rows each optimizer step learns from. No torch here.

Rows drawn at random seldom share a step with those that begin alike. So rows with a common beginning are drawn
together, in groups, and the groups at random: a step keeps its number of rows, its rows are less independent of each
other, and what they share is computed once. docs/training.md has what that does to the result, measured.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from outcrop.datasets.rows import Rows
from outcrop.training.prefixes import by_beginning, neighbours

# Rows make a group when what they share beyond the rest is this part of their tokens, on average.
LEAST_SHARE = 0.1
# Drawing in groups must save this part of all tokens, else rows are drawn one by one.
LEAST_SAVING = 0.05
# To fill a step up, a group that fits is looked for among so many that come next.
WINDOW = 64


@dataclass(frozen=True)
class Group:
    """Rows drawn together; `loose` ones have nothing to choose between them, so each epoch pairs them anew."""

    rows: list[int]
    loose: bool = False


class Sampler:
    """The rows of every step, a function of seed and epoch alone, so that they can be found again."""

    def __init__(self, rows: Rows, batch_rows: int, seed: int, *, groups: bool = True, shuffles: bool = True) -> None:
        self._num_rows, self._batch_rows, self._seed, self._shuffles = len(rows), batch_rows, seed, shuffles
        self._groups: list[Group] = []
        self.saving = 0.0
        if groups and shuffles and batch_rows > 1 and len(rows) > 1:
            self._find_groups(rows)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps; the last one may have fewer rows."""
        return -(-self._num_rows // self._batch_rows)

    def steps(self, epoch: int) -> list[list[int]]:
        """The rows of each step of an epoch."""
        draw = random.Random(self._seed * 1_000_003 + epoch)
        if self._groups:
            return self._draw_groups(draw)
        order = list(range(self._num_rows))
        if self._shuffles:
            draw.shuffle(order)
        return [order[begin : begin + self._batch_rows] for begin in range(0, len(order), self._batch_rows)]

    def _find_groups(self, rows: Rows) -> None:
        order = by_beginning(rows, range(len(rows)))
        shared = neighbours(rows, order)
        lengths = np.diff(rows.starts)
        groups = _grouped(order, shared, lengths, self._batch_rows)
        # What grouping saves beyond what any step shares anyhow, such as a system prompt that all rows begin with.
        common = int(shared[1:].min())
        saved = 0
        for group in groups:
            if len(group.rows) > 1:
                ranks = by_beginning(rows, group.rows) if group.loose else group.rows
                saved += int((neighbours(rows, ranks)[1:] - common).sum())
        self.saving = saved / max(1, int(lengths.sum()) - common * (len(rows) - self.steps_per_epoch))
        if self.saving >= LEAST_SAVING:
            self._groups = groups

    def _draw_groups(self, draw: random.Random) -> list[list[int]]:
        """Groups in random order, laid into steps whole where one fits and in two where none does."""
        waiting: list[list[int]] = []
        for group in self._groups:
            rows = list(group.rows)
            if group.loose:
                draw.shuffle(rows)
            waiting += [rows[begin : begin + self._batch_rows] for begin in range(0, len(rows), self._batch_rows)]
        draw.shuffle(waiting)
        waiting.reverse()
        steps: list[list[int]] = []
        step: list[int] = []
        while waiting:
            room = self._batch_rows - len(step)
            near = range(len(waiting) - 1, max(-1, len(waiting) - 1 - WINDOW), -1)
            chosen = next((place for place in near if len(waiting[place]) <= room), None)
            if chosen is None:
                step += waiting[-1][:room]
                waiting[-1] = waiting[-1][room:]
            else:
                step += waiting.pop(chosen)
            if len(step) == self._batch_rows:
                steps.append(step)
                step = []
        return [*steps, step] if step else steps


def _grouped(order: Sequence[int], shared: np.ndarray, lengths: np.ndarray, batch_rows: int) -> list[Group]:
    """Groups of at most a step's rows that share a beginning; larger families fall apart into those below them."""
    groups: list[Group] = []
    waiting = [(0, len(order))]
    while waiting:
        first, last = waiting.pop()
        inner = shared[first + 1 : last]
        common = int(inner.min())
        more = max(1, int(LEAST_SHARE * float(np.mean([lengths[row] for row in order[first:last]]))))
        seams = [first, *(np.flatnonzero(inner < common + more) + first + 1).tolist(), last]
        alone: list[int] = []
        for begin, end in pairwise(seams):
            if end - begin == 1:
                alone.append(order[begin])
            elif end - begin <= batch_rows:
                groups.append(Group(list(order[begin:end])))
            else:
                waiting.append((begin, end))
        # Rows that differ at once are drawn together when a family, but not the whole file, has more than a step takes.
        if (first, last) == (0, len(order)):
            groups += [Group([row]) for row in alone]
        elif alone:
            groups.append(Group(alone, loose=True))
    return groups
