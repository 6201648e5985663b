"""Answers that must follow a grammar: of each next token, which may come (llguidance).

Shape legend: V vocabulary.
"""

from pathlib import Path
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer

Array = np.ndarray[Any, Any]


class Constraints:
    """Grammars over one base's tokens. The tokenizer is read when the first grammar comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokenizers: dict[tuple[int, tuple[int, ...]], LLTokenizer] = {}

    def begin(self, grammar: str, vocabulary: int, stop_tokens: list[int]) -> LLMatcher:
        """A matcher at the beginning of an answer. Raises ValueError for a grammar that does not compile."""
        key = vocabulary, tuple(stop_tokens)
        if key not in self._tokenizers:
            text = (self._folder / "tokenizer.json").read_text(encoding="utf-8")
            self._tokenizers[key] = LLTokenizer(text, n_vocab=vocabulary, eos_token=stop_tokens)
        matcher = LLMatcher(self._tokenizers[key], grammar)
        if matcher.is_error():
            raise ValueError(f"the grammar does not compile: {matcher.get_error()}")
        return matcher


def forbid(logits_V: Array, matcher: LLMatcher) -> None:
    """Take away the chances of every token that may not come next."""
    allowed = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    bits_V = np.unpackbits(allowed, bitorder="little")[: len(logits_V)]
    logits_V[: len(bits_V)][bits_V == 0] = -np.inf
    logits_V[len(bits_V) :] = -np.inf
