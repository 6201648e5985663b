"""Who may ask an engine how much at once."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from outcrop.errors import Throttled

# A request waits this long for a place before it is refused.
WAIT_S = 30.0


class Capacity:
    """Places at one engine. Provisioned throughput has its own, as many as its model units; the rest is on demand.

    A request takes a place of its own kind, or waits for one; when twice as many wait as there are places, or the wait
    gets too long, it is refused with ThrottlingException.
    """

    def __init__(self, slots: int, wait_s: float = WAIT_S) -> None:
        self._slots, self._wait_s = slots, wait_s
        self._changed = threading.Condition()
        self._reserved: dict[str, int] = {}
        self._busy: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()

    def reserve(self, holder: str, units: int) -> None:
        """Give a provisioned throughput so many places; 0 takes them back."""
        with self._changed:
            self._reserved.pop(holder, None)
            if units:
                self._reserved[holder] = units
            self._changed.notify_all()

    @property
    def reserved(self) -> int:
        """Places that belong to provisioned throughput."""
        return sum(self._reserved.values())

    @contextmanager
    def place(self, holder: str | None) -> Iterator[None]:
        """A place for one request; `holder` None is on demand. Raises Throttled."""
        kind = holder if holder in self._reserved else ""
        with self._changed:
            if self._free(kind) <= 0:
                if self._waiting[kind] >= max(8, 2 * self._limit(kind)):
                    raise Throttled("Too many requests wait for this model, please wait before trying again.")
                self._waiting[kind] += 1
                try:
                    if not self._changed.wait_for(lambda: self._free(kind) > 0, self._wait_s):
                        raise Throttled("Too many requests, please wait before trying again.")
                finally:
                    self._waiting[kind] -= 1
            self._busy[kind] += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy[kind] -= 1
                self._changed.notify_all()

    def _limit(self, kind: str) -> int:
        return self._reserved.get(kind, 0) if kind else max(1, self._slots - self.reserved)

    def _free(self, kind: str) -> int:
        return self._limit(kind) - self._busy[kind]
