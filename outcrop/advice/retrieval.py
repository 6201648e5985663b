"""Passages of documents for a question, by their words: BM25 (Robertson and Zaragoza, 2009), with the usual k1 1.2 and b 0.75."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from outcrop.evaluation import Case
from outcrop.evaluation.cases import asking_instead

K1, B = 1.2, 0.75
WORD = re.compile(r"\w+")


class Retriever:
    """An index of passages."""

    def __init__(self, passages: Sequence[str]) -> None:
        self.passages = list(passages)
        self._counts = [Counter(_words(passage)) for passage in passages]
        self._sizes = [count.total() for count in self._counts]
        self._mean = sum(self._sizes) / max(len(self._sizes), 1) or 1.0
        self._places: dict[str, list[int]] = {}
        for number, count in enumerate(self._counts):
            for word in count:
                self._places.setdefault(word, []).append(number)

    def find(self, question: str, most: int) -> list[str]:
        """The passages that go best with a question, best first; fewer when not as many share a word with it."""
        scores: Counter[int] = Counter()
        for word in dict.fromkeys(_words(question)):
            there = self._places.get(word, ())
            weight = math.log(1 + (len(self.passages) - len(there) + 0.5) / (len(there) + 0.5))
            for number in there:
                count, size = self._counts[number][word], self._sizes[number]
                scores[number] += weight * count * (K1 + 1) / (count + K1 * (1 - B + B * size / self._mean))  # type: ignore[assignment]
        ranked = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
        return [self.passages[number] for number, _ in ranked[:most]]


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def with_passages(case: Case, retriever: Retriever, most: int) -> Case:
    """The row with what was found for its question written before it."""
    found = retriever.find(case.question, most)
    text = "\n\n".join([*found, case.question])
    return Case(case.line, asking_instead(case.prompt, text), case.reference, case.row)
