"""Whether what a model is asked, and what it answers, has changed: recent calls against earlier ones, or against its training prompts.

A change is told when its p value, corrected for the number of measures, is below 0.01 and it is large enough to matter: with thousands of
calls the smallest change is significant.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from outcrop.evaluation.intervals import measure
from outcrop.evaluation.likeness import Embed
from outcrop.evaluation.significance import FEWEST, holm

LEVEL = 0.01
# What is large enough: of lengths' distributions (Kolmogorov and Smirnov's distance), of words' (Jensen and Shannon's divergence beyond
# that of two halves of the earlier calls, bits), of vectors' means (cosine distance), of shares (points), of token counts (part).
LARGE = {"input length": 0.1, "vocabulary": 0.05, "meaning": 0.05, "share": 0.02, "tokens": 0.1}
# So many shuffles that the smallest p value, corrected for all measures, is below LEVEL.
SHUFFLES, MOST_TEXTS = 1000, 2000
WORD = re.compile(r"\w+")
REFUSAL = re.compile(
    r"\b(i('| a)m (sorry|unable|not able)|i (can ?not|can'?t|won'?t|am unable to)|as an ai|(can ?not|can'?t|unable to) (help|assist|answer|comply|provide))\b",
    re.IGNORECASE,
)  # fmt: skip
# A refusal is said in the beginning (characters).
BEGINNING = 200


@dataclass(frozen=True)
class Call:
    """A call: what was asked, what was answered ("" where it failed), and what it took. `is_cut` says that the answer ran into its limit."""

    asked: str
    answered: str = ""
    has_failed: bool = False
    is_cut: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None


class Change(msgspec.Struct, frozen=True):
    """A measure of both windows. `size` is how far they are apart, in the measure's own unit; `p` is corrected."""

    name: str
    before: str
    after: str
    size: float
    p: float
    is_told: bool
    what: str = ""


def is_refusal(answer: str) -> bool:
    """Whether an English answer declines. A net of phrases: it misses polite evasions, and takes an apology that helps after all."""
    return REFUSAL.search(answer[:BEGINNING]) is not None


def changes(
    before: Sequence[Call],
    after: Sequence[Call],
    embed: Embed | None = None,
    seed: int = 0,
) -> list[Change]:
    """Every measure of two windows of calls; none with fewer than FEWEST calls in either. Prompts alone (training rows) are compared as inputs alone."""
    if min(len(before), len(after)) < FEWEST:
        return []
    rng = np.random.default_rng(seed)
    found: list[Change] = []
    asked = [[call.asked for call in some if call.asked] for some in (before, after)]
    if min(map(len, asked)) >= FEWEST:
        found = [_lengths(*asked), _vocabulary(_sample(asked[0], rng), _sample(asked[1], rng), rng)]
        if embed is not None:
            found.append(_meaning(_sample(asked[0], rng), _sample(asked[1], rng), embed, rng))
    if any(call.answered or call.has_failed for call in before):
        for name, of in (
            ("errors", lambda call: call.has_failed),
            ("refusals", lambda call: is_refusal(call.answered)),
            ("answers cut at their limit", lambda call: call.is_cut),
        ):
            found.append(_share(name, [of(call) for call in before], [of(call) for call in after]))
        for name, part in (("input tokens", "input_tokens"), ("output tokens", "output_tokens")):
            counts = [
                [getattr(call, part) for call in some if getattr(call, part) is not None] for some in (before, after)
            ]
            if min(map(len, counts)) >= FEWEST:
                found.append(_counts(name, counts[0], counts[1], rng))
    corrected = holm([one.p for one in found])
    return [
        msgspec.structs.replace(one, p=p, is_told=p < LEVEL and abs(one.size) >= LARGE[_kind(one.name)])
        for one, p in zip(found, corrected, strict=True)
    ]


def _kind(name: str) -> str:
    return name if name in LARGE else "tokens" if name.endswith("tokens") else "share"


def _lengths(before: Sequence[str], after: Sequence[str]) -> Change:
    """Words a question, by Kolmogorov and Smirnov's test (Stephens's approximation, 1970)."""
    first, second = (np.sort([len(WORD.findall(text)) for text in some]) for some in (before, after))
    every = np.concatenate([first, second])
    shares = [np.searchsorted(one, every, side="right") / len(one) for one in (first, second)]
    distance = float(np.abs(shares[0] - shares[1]).max())
    root = math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    scaled = (root + 0.12 + 0.11 / root) * distance
    p = (
        2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101))
        if scaled > 0.2
        else 1.0
    )
    return Change(
        "input length",
        f"{np.median(first):.0f} words",
        f"{np.median(second):.0f} words",
        distance,
        min(max(p, 0.0), 1.0),
        False,
        "distance of the distributions; medians",
    )


def _vocabulary(before: Sequence[str], after: Sequence[str], rng: np.random.Generator) -> Change:
    """Words of the questions: how far the two distributions are apart beyond what chance makes of one (shuffled calls)."""
    counts = [Counter(word for word in WORD.findall(text.casefold())) for text in (*before, *after)]
    words = {word: number for number, word in enumerate(Counter(word for count in counts for word in count))}
    if not words:
        return Change("vocabulary", "0 words", "no words", 0.0, 1.0, False, "divergence beyond chance (bits)")
    of_text = np.repeat(np.arange(len(counts)), [len(count) for count in counts])
    of_word = np.array([words[word] for count in counts for word in count])
    often = np.array([number for count in counts for number in count.values()], float)

    def apart(order: np.ndarray) -> float:
        side = np.zeros(len(counts), np.int64)
        side[order[len(before) :]] = 1
        sums = np.bincount(of_word + side[of_text] * len(words), often, 2 * len(words)).reshape(2, -1)
        parts = sums / np.maximum(sums.sum(axis=1, keepdims=True), 1)
        middle = parts.mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = [np.where(part > 0, part * np.log2(part / middle), 0.0).sum() for part in parts]
        return float(np.mean(bits))

    seen = apart(np.arange(len(counts)))
    chance = np.array([apart(rng.permutation(len(counts))) for _ in range(SHUFFLES)])
    known = {word for text in before for word in WORD.findall(text.casefold())}
    new = [word for text in after for word in WORD.findall(text.casefold())]
    share = sum(word not in known for word in new) / max(len(new), 1)
    p = (int((chance >= seen).sum()) + 1) / (SHUFFLES + 1)
    return Change(
        "vocabulary",
        f"{len(known):,} words",
        f"{share:.1%} of the words are new".replace("%", " %"),
        seen - float(chance.mean()),
        p,
        False,
        "divergence beyond chance (bits)",
    )


def _meaning(
    before: Sequence[str],
    after: Sequence[str],
    embed: Embed,
    rng: np.random.Generator,
) -> Change:
    """Vectors of the questions: the cosine distance of their means, against shuffled calls."""
    made = embed([*before, *after])
    size = sum(vector is not None for vector in made[: len(before)])
    vectors = np.array([vector for vector in made if vector is not None], dtype=float)
    if min(size, len(vectors) - size) < FEWEST:
        return Change("meaning", "", "", 0.0, 1.0, False, "too few texts that the embedding model reads")
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def apart(order: np.ndarray) -> float:
        means = [vectors[order[:size]].mean(axis=0), vectors[order[size:]].mean(axis=0)]
        return 1 - float(means[0] @ means[1] / max(np.linalg.norm(means[0]) * np.linalg.norm(means[1]), 1e-12))

    seen = apart(np.arange(len(vectors)))
    chance = [apart(rng.permutation(len(vectors))) for _ in range(SHUFFLES)]
    p = (sum(one >= seen for one in chance) + 1) / (SHUFFLES + 1)
    return Change(
        "meaning", "", "", seen - float(np.mean(chance)), p, False, "cosine distance of the mean vectors beyond chance"
    )


def _sample(texts: list[str], rng: np.random.Generator) -> list[str]:
    return (
        texts
        if len(texts) <= MOST_TEXTS
        else [texts[number] for number in sorted(rng.choice(len(texts), MOST_TEXTS, replace=False))]
    )


def _share(name: str, before: Sequence[bool], after: Sequence[bool]) -> Change:
    """Fisher's exact test of two shares, by the hypergeometric distribution."""
    first, second = sum(before), sum(after)
    said = []
    for some in (before, after):
        figure = measure([float(one) for one in some])
        said.append(f"{100 * figure.mean:.1f} % [{100 * figure.low:.1f}, {100 * figure.high:.1f}]")
    size = second / len(after) - first / len(before)
    return Change(name, said[0], said[1], size, _fisher(first, len(before), second, len(after)), False, "points")


def _fisher(first: int, of_first: int, second: int, of_second: int) -> float:
    both, every = first + second, of_first + of_second

    def weight(number: int) -> float:
        return sum(
            sign * math.lgamma(value + 1)
            for sign, value in (
                (1, of_first), (-1, number), (-1, of_first - number), (1, of_second), (-1, both - number), (-1, of_second - both + number),
                (-1, every), (1, both), (1, every - both),
            )
        )  # fmt: skip

    seen = weight(first)
    low, high = max(0, both - of_second), min(both, of_first)
    return min(1.0, sum(math.exp(one) for number in range(low, high + 1) if (one := weight(number)) <= seen + 1e-9))


def _counts(name: str, before: Sequence[int], after: Sequence[int], rng: np.random.Generator) -> Change:
    """Means of token counts, by shuffling the calls."""
    first, second = np.array(before, float), np.array(after, float)
    seen, every = abs(second.mean() - first.mean()), np.concatenate([first, second])
    extreme = 0
    for _ in range(2000):
        rng.shuffle(every)
        extreme += abs(every[: len(first)].mean() - every[len(first) :].mean()) >= seen - 1e-9
    said = []
    for some in (first, second):
        figure = measure(some.tolist())
        said.append(f"{figure.mean:.1f} [{figure.low:.1f}, {figure.high:.1f}]")
    part = float(second.mean() / first.mean() - 1) if first.mean() else 0.0
    return Change(name, said[0], said[1], part, (int(extreme) + 1) / 2001, False, "part of the earlier mean")
