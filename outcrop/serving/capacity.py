"""Who may ask an engine how much at once."""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager

from outcrop.errors import Throttled

# A request waits this long for a place before it is refused.
WAIT_S = 30.0


class Capacity:
    """Places at one engine. Provisioned throughput has its own, as many as its model units; the rest is on demand.

    A request takes a place of its own kind, or waits for one. Free places on demand go round the models that wait, one
    each, so that a model which many ask for does not keep out one which few do; within a model who came first goes first.
    When twice as many wait as there are places, or the wait gets too long, a request is refused with
    ThrottlingException.
    """

    def __init__(self, slots: int, wait_s: float = WAIT_S) -> None:
        self._slots, self._wait_s = slots, wait_s
        self._lock = threading.Lock()
        self._reserved: dict[str, int] = {}
        self._busy: Counter[str] = Counter()
        self._waiting: dict[str, OrderedDict[str, deque[threading.Event]]] = {}

    def reserve(self, holder: str, units: int) -> None:
        """Give a provisioned throughput so many places; 0 takes them back."""
        with self._lock:
            self._reserved.pop(holder, None)
            if units:
                self._reserved[holder] = units
            for kind in list(self._waiting):
                self._let_in(kind)

    @property
    def reserved(self) -> int:
        """Places that belong to provisioned throughput."""
        return sum(self._reserved.values())

    @contextmanager
    def place(self, holder: str | None, model: str = "") -> Iterator[None]:
        """A place for one request of a model; `holder` None is on demand. Raises Throttled."""
        kind = holder if holder in self._reserved else ""
        self._take(kind or "", model)
        try:
            yield
        finally:
            with self._lock:
                self._busy[kind or ""] -= 1
                self._let_in(kind or "")

    def _take(self, kind: str, model: str) -> None:
        with self._lock:
            queues = self._waiting.setdefault(kind, OrderedDict())
            if self._free(kind) > 0:  # nobody waits: those who do are let in whenever a place becomes free
                self._busy[kind] += 1
                return
            if sum(map(len, queues.values())) >= max(8, 2 * self._limit(kind)):
                raise Throttled("Too many requests wait for this model, please wait before trying again.")
            turn = threading.Event()
            queues.setdefault(model, deque()).append(turn)
        if turn.wait(self._wait_s):
            return
        with self._lock:
            if turn.is_set():  # let in at the last moment
                return
            queues[model].remove(turn)
            if not queues[model]:
                del queues[model]
        raise Throttled("Too many requests, please wait before trying again.")

    def _let_in(self, kind: str) -> None:
        """Give free places to those who wait, a model after the other."""
        queues = self._waiting.get(kind, OrderedDict())
        while queues and self._free(kind) > 0:
            model, turns = queues.popitem(last=False)
            turns.popleft().set()
            self._busy[kind] += 1
            if turns:
                queues[model] = turns

    def _limit(self, kind: str) -> int:
        return self._reserved.get(kind, 0) if kind else max(1, self._slots - self.reserved)

    def _free(self, kind: str) -> int:
        return self._limit(kind) - self._busy[kind]
