"""Which rows look alike: MinHash signatures of whole blocks of lines, and what two rows that seem alike really share.

Broder, "On the resemblance and containment of documents" (1997): the chance that two rows have the same smallest hash is
the share of pairs of words that they have in common. BANDS keys of ROWS_A_BAND smallest hashes each make rows that share
80 % of their pairs of words meet with a chance above 99.9 %, those that share 30 % with one of 50 %; `alike` decides.
"""

import re
from collections import Counter

import numpy as np

BANDS, ROWS_A_BAND = 8, 2
BLOCK = 1 << 20
KEPT_POWERS = 4 * BLOCK
# Of the words of the sentences in which two rows differ, so many may differ.
MOST_CHANGED = 0.15

_WORD = np.zeros(256, np.uint8)
_WORD[48:58] = np.arange(48, 58)
_WORD[97:123] = np.arange(97, 123)
_WORD[65:91] = np.arange(97, 123)
_WORD[128:] = np.arange(128, 256)
_PRIME = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_rng = np.random.default_rng(20240611)
_HASHES = (_rng.integers(0, 2**63, BANDS * ROWS_A_BAND, dtype=np.int64).astype(np.uint64) << np.uint64(1)) | np.uint64(
    1
)


class _Powers:
    """Powers of the prime and of its inverse, grown when a block is larger than any before."""

    both: tuple[np.ndarray, np.ndarray] = (np.ones(1, np.uint64), np.ones(1, np.uint64))

    @classmethod
    def of(cls, size: int) -> tuple[np.ndarray, np.ndarray]:
        up, down = cls.both  # read once: other threads may put another pair there
        if len(up) < size:
            up, down = (
                np.cumprod(np.concatenate([[1], np.full(size, base, np.uint64)]).astype(np.uint64))
                for base in (_PRIME, pow(_PRIME, -1, 1 << 64))
            )
            if size <= KEPT_POWERS:
                cls.both = (up, down)
        return up[:size], down[:size]


def signatures(block: bytes, starts: np.ndarray) -> np.ndarray:
    """uint32 [rows, BANDS]: the keys of the lines that begin at `starts`, in which case and punctuation do not count.

    A line without words has keys of its own kind, which are all alike.
    """
    keys = np.zeros((len(starts), BANDS), np.uint32)
    chars = _WORD[np.frombuffer(block, np.uint8)]
    inside = np.concatenate([[False], chars != 0, [False]])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    begins, ends = edges[0::2], edges[1::2]
    if not len(begins):
        return keys
    up, down = _Powers.of(len(block))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(chars * up, dtype=np.uint64)])
    words = (sums[ends] - sums[begins]) * down[begins]
    words ^= words >> np.uint64(29)
    words *= _MIX
    first = np.searchsorted(begins, starts)
    follows = np.concatenate([words[1:], np.zeros(1, np.uint64)])
    follows[np.concatenate([first[1:], [len(words)]]) - 1] = 0  # the last word of a line has no successor
    pairs = words + (follows >> np.uint64(7)) * _MIX
    pairs ^= pairs >> np.uint64(31)
    has_words = np.diff(np.concatenate([first, [len(words)]])) > 0
    places = first[has_words]
    for band in range(BANDS):
        key = np.zeros(len(places), np.uint64)
        for row in range(ROWS_A_BAND):
            smallest = np.minimum.reduceat(pairs * _HASHES[band * ROWS_A_BAND + row], places)
            key = (key ^ smallest) * _MIX
            key ^= key >> np.uint64(32)
        keys[has_words, band] = key.astype(np.uint32)
    return keys


def plain(text: str) -> str:
    """A text with neither case nor superfluous white space: what is the same so is said to be the same."""
    return " ".join(text.lower().split())


_SENTENCE = re.compile(r"[^.!?\n]+[.!?\n]*")
_WORDS = re.compile(r"\w+")
_NO_WORD = {code: " " for code in range(128) if not (chr(code).isalnum() or chr(code) == "_")}


def alike(one: str, other: str) -> bool:
    """Whether two texts say nearly the same: they differ in case and punctuation alone, or in at most MOST_CHANGED of the
    words of those sentences that they do not share, none of them a number. The order of words does not count.

    Sentences that both have do not count: two questions on one document are not alike because of the document.
    """
    mine_lines, yours_lines = dict.fromkeys(one.split("\n")), dict.fromkeys(other.split("\n"))
    my_text = "\n".join(line for line in mine_lines if line not in yours_lines)
    your_text = "\n".join(line for line in yours_lines if line not in mine_lines)
    if _is_far(my_text, your_text):
        return False
    mine, yours = _sentences(my_text), _sentences(your_text)
    only_mine, only_yours = [s for s in mine if s not in yours], [s for s in yours if s not in mine]
    left = Counter(word for sentence in only_mine for word in sentence)
    right = Counter(word for sentence in only_yours for word in sentence)
    mine_alone, yours_alone = left - right, right - left
    if any(char.isdigit() for word in (*mine_alone, *yours_alone) for char in word):
        return False
    return max(mine_alone.total(), yours_alone.total()) <= MOST_CHANGED * max(left.total(), right.total())


def _is_far(one: str, other: str) -> bool:
    """Whether more words differ than `alike` allows, by sets of words: quick, and never true of what is alike."""
    mine, yours = (text.lower().translate(_NO_WORD).split() for text in (one, other))
    my_set, your_set = set(mine), set(yours)
    return max(len(my_set - your_set), len(your_set - my_set)) > MOST_CHANGED * max(len(mine), len(yours))


def _sentences(text: str) -> dict[tuple[str, ...], None]:
    words = (tuple(_WORDS.findall(sentence.lower())) for sentence in _SENTENCE.findall(text))
    return dict.fromkeys(sentence for sentence in words if sentence)


class Seen:
    """Short texts that came, by which those are known that say the same, or nearly; found by their longest words."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._by_word: dict[str, list[str]] = {}

    def add(self, text: str) -> bool:
        """Whether the text is new; then it has come from now on."""
        key = plain(text)
        longest = sorted(set(key.split()), key=lambda word: (-len(word), word))[:3]
        near = {other for word in longest for other in self._by_word.get(word, ())}
        if key in self._keys or any(alike(text, other) for other in near):
            return False
        self._keys.add(key)
        for word in longest:
            self._by_word.setdefault(word, []).append(text)
        return True


class Index:
    """Texts by which another one is found that says the same, or nearly: `add` all of them, then `find`."""

    # Rows whose signatures are made at once, texts of a band that are compared, and bands that candidates share at least.
    _ROWS, _GROUP, _BANDS = 64, 12, 2

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self._same: dict[str, int] = {}
        self._groups: dict[tuple[int, int], list[int]] = {}
        for number, text in enumerate(texts):
            self._same.setdefault(plain(text), number)
        for number, keys in enumerate(self._bands(texts)):
            for place in keys:
                group = self._groups.setdefault(place, [])
                if len(group) < self._GROUP:
                    group.append(number)

    def same(self, text: str) -> int | None:
        """The number of a text that differs in case and white space alone."""
        return self._same.get(plain(text))

    def near(self, texts: list[str]) -> list[int | None]:
        """For each text the number of one of the index that says the same or nearly, as `alike` has it; None when there is none."""
        found: list[int | None] = []
        for text, keys in zip(texts, self._bands(texts), strict=True):
            rivals = Counter(number for place in keys for number in self._groups.get(place, ()))
            likely = (number for number, shared in rivals.most_common() if shared >= self._BANDS)
            exact = self.same(text)
            found.append(
                exact
                if exact is not None
                else next((number for number in likely if alike(text, self._texts[number])), None)
            )
        return found

    def _bands(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        keys = []
        for begin in range(0, len(texts), self._ROWS):
            lines = [
                text.replace("\n", " ").encode("utf-8", "replace") + b"\n" for text in texts[begin : begin + self._ROWS]
            ]
            starts = np.concatenate([[0], np.cumsum([len(line) for line in lines])[:-1]])
            keys += [list(enumerate(row)) for row in signatures(b"".join(lines), starts).tolist()]
        return keys
