"""The key-value cache: pages of a few places, shared by sequences that begin alike.

A full page is known by what came before it and the tokens on it, adapter included, and compared by these and not by a
hash of them: a sequence that begins with tokens which are still in the cache takes their pages over and computes the
rest. Pages that no sequence uses stay until room is needed, the longest unused first. (vLLM keeps pages so, Kwon et al.,
arXiv:2309.06180; sharing by a tree of tokens is Zheng et al., arXiv:2312.07104.)

Shape legend: P pages, K key-value heads, C places of a page, D head width.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

PLACES = 32


@dataclass
class Line:
    """A sequence's part of the cache: its pages, and how many of its tokens they hold."""

    adapter: Hashable
    tokens: list[int]
    pages: list[int] = field(default_factory=list)
    length: int = 0
    known: int = 0
    """Pages at the front that others may share."""
    parent: Hashable = None
    """What stands for the last known page in the key of the next one."""
    promised: int = 0
    """Pages that it may still ask for."""

    def next_key(self) -> Hashable:
        """How the first page that is not known will be known; None when not all of its tokens are there."""
        begin = self.known * PLACES
        tokens = self.tokens[begin : begin + PLACES]
        return (self.parent, tuple(tokens)) if len(tokens) == PLACES else None


class Pages:
    """Keys and values of every layer, [P, K, C, D] each. Memory is taken as pages are first written."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._layers: dict[int, tuple[Array, Array]] = {}
        self._free = list(range(count - 1, -1, -1))
        self._users = [0] * count
        self._known: dict[Hashable, tuple[int, int]] = {}
        self._key_of: dict[int, Hashable] = {}
        self._unused: OrderedDict[int, None] = OrderedDict()
        self._serial = 0
        self._promised = 0

    def layer(self, index: int, kv_heads: int, width: int, value_width: int) -> tuple[Array, Array]:
        """A layer's keys and values."""
        if index not in self._layers:
            shape = (self.count, kv_heads, PLACES)
            self._layers[index] = (
                np.empty((*shape, width), np.float32),
                np.empty((*shape, value_width), np.float32),
            )
        return self._layers[index]

    def begin(self, tokens: Sequence[int], adapter: Hashable, most: int, reuses: bool = True) -> Line | None:
        """A line for these tokens and up to `most` in all, with what is known of them; None when there is no room now.

        At least the last token is left to be computed: its logits are wanted. Raises ValueError when there never is room.
        """
        needed = -(-most // PLACES)
        if needed > self.count:
            raise ValueError(
                f"{most} tokens of prompt and answer do not fit the cache of {self.count * PLACES}; "
                "raise OUTCROP_ENGINE_CACHE_GB"
            )
        line = Line(adapter, list(tokens), parent=(adapter,))
        found: list[tuple[int, int]] = []
        while reuses and (len(found) + 1) * PLACES < len(tokens):
            line.known = len(found)
            entry = self._known.get(line.next_key())
            if entry is None:
                break
            found.append(entry)
            line.parent = entry[1]
        revived = sum(1 for page, _ in found if not self._users[page])
        line.promised = needed - len(found)
        if line.promised + revived > len(self._free) + len(self._unused) - self._promised:
            return None
        self._promised += line.promised
        for page, _ in found:
            self._users[page] += 1
            self._unused.pop(page, None)
            line.pages.append(page)
        line.known = len(found)
        line.length = len(found) * PLACES
        return line

    def extend(self, line: Line, length: int) -> None:
        """Pages for so many tokens in all; within what was promised at `begin`."""
        while len(line.pages) * PLACES < length:
            page = self._take()
            self._users[page] = 1
            line.pages.append(page)
            line.promised -= 1
            self._promised -= 1

    def computed(self, line: Line, length: int) -> None:
        """So many of the line's tokens are in the cache now; full pages may be shared from here on."""
        line.length = length
        while (line.known + 1) * PLACES <= length:
            key = line.next_key()
            assert key is not None
            page = line.pages[line.known]
            if key in self._known:  # somebody computed the same meanwhile: children hang on the page that is known
                line.parent = self._known[key][1]
            else:
                self._serial += 1
                self._known[key] = (page, self._serial)
                self._key_of[page] = key
                line.parent = self._serial
            line.known += 1

    def end(self, line: Line) -> None:
        """The line is no longer needed; what others may want of it is kept while there is room."""
        for page in reversed(line.pages):  # a page goes before those that it continues
            self._users[page] -= 1
            if not self._users[page]:
                if page in self._key_of:
                    self._unused[page] = None
                else:
                    self._free.append(page)
        self._promised -= line.promised
        line.pages, line.promised, line.length = [], 0, 0

    def forget(self) -> None:
        """Share nothing that was computed so far."""
        self._free += self._unused
        self._unused.clear()
        self._known.clear()
        self._key_of.clear()

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        page, _ = self._unused.popitem(last=False)
        del self._known[self._key_of.pop(page)]
        return page
