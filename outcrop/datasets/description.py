"""What is in a checked file, in a base model's own tokens: lengths, diversity, shared beginnings, and any row's mask."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np

from outcrop.datasets.report import Report, contents
from outcrop.errors import Invalid
from outcrop.rendering import Conversation, Rendered, Renderer

# Of larger files so many rows are looked at, evenly spread.
MOST_ROWS = 20_000
AT_ONCE = 256
BINS = 24
PERCENTILES = (50, 90, 99, 100)


@dataclass(frozen=True)
class Lengths:
    """Numbers of tokens: their mean, some percentiles, and a histogram of BINS bins from 0 to `top`."""

    mean: float
    percentiles: dict[int, int]
    counts: list[int]
    top: int
    total: int

    @classmethod
    def of(cls, values: list[int]) -> "Lengths":
        """Of at least one row."""
        array = np.asarray(values)
        top = max(BINS, -(-int(array.max() + 1) // BINS) * BINS)
        counts, _ = np.histogram(array, BINS, (0, top))
        nearest = {share: int(np.percentile(array, share, method="higher")) for share in PERCENTILES}
        return cls(float(array.mean()), nearest, counts.tolist(), top, int(array.sum()))


@dataclass(frozen=True)
class Description:
    """What a file holds. `looked_at` rows were rendered; every figure is of those.

    `distinct_prompts` and `distinct_answers` are shares of the rows. `distinct_pairs` is the share of different pairs of words
    among all pairs of words of the answers (distinct-2; Li et al., 2016). `shared` is the share of tokens that rows have in
    common with the row before them when they are sorted: what prefix sharing can save at most.
    """

    rows: int
    looked_at: int
    form: str
    turns: Counter[int]
    systems: Counter[str]
    prompts: Lengths
    answers: Lengths
    whole: Lengths
    distinct_prompts: float
    distinct_answers: float
    distinct_pairs: float
    shared: float
    commonest_answers: list[tuple[str, int]]
    commonest_openings: list[tuple[str, int]]
    refused: int = 0


def describe(report: Report, renderer: Renderer) -> Description:
    """Render a file's rows, or an even sample of them, and describe them. Raises Invalid when none can be rendered."""
    every = max(1, -(-report.rows // MOST_ROWS))
    prompts, answers, whole, order = [], [], [], []
    turns: Counter[int] = Counter()
    systems: Counter[str] = Counter()
    said: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    openings: Counter[str] = Counter()
    pairs: set[tuple[str, str]] = set()
    num_pairs = refused = 0
    for content, row in _rendered(report, renderer, every):
        if isinstance(row, Invalid):
            refused += 1
            continue
        learned = sum(row.is_answer)
        answers.append(learned)
        prompts.append(len(row.tokens) - learned)
        whole.append(len(row.tokens))
        order.append(np.asarray(row.tokens, np.int32))
        if isinstance(content, Conversation):
            turns[len(content.messages)] += 1
            systems[content.system or ""] += 1
            answer = content.messages[-1].text
            asked["\x1f".join(message.text for message in content.messages[:-1])] += 1
            openings[" ".join(content.messages[0].text.split()[:3])] += 1
        else:
            answer = content
            openings[" ".join(content.split()[:3])] += 1
        said[answer] += 1
        words = answer.split()
        num_pairs += max(0, len(words) - 1)
        pairs.update(pairwise(words))
    if not whole:
        raise Invalid(f"{report.source.uri}: no row can be rendered for this base model")
    return Description(
        rows=report.rows, looked_at=len(whole), form=report.format.name if report.format else "", turns=turns, systems=systems,
        prompts=Lengths.of(prompts), answers=Lengths.of(answers), whole=Lengths.of(whole),
        distinct_prompts=len(asked) / len(whole) if asked else 1.0, distinct_answers=len(said) / len(whole),
        distinct_pairs=len(pairs) / num_pairs if num_pairs else 1.0, shared=_shared(order),
        commonest_answers=said.most_common(8), commonest_openings=openings.most_common(8), refused=refused,
    )  # fmt: skip


def _rendered(
    report: Report, renderer: Renderer, every: int
) -> Iterator[tuple[Conversation | str, Rendered | Invalid]]:
    lines = (content for index, (_, content) in enumerate(contents(report)) if index % every == 0)
    while batch := list(islice(lines, AT_ONCE)):
        yield from zip(batch, renderer.training_rows(batch), strict=True)


def _shared(rows: list[np.ndarray]) -> float:
    """The share of tokens that lie in a beginning which the row before has, too, when rows are sorted by their tokens."""
    ordered = sorted(rows, key=lambda row: row.astype(">i4").tobytes())
    common = 0
    for before, row in pairwise(ordered):
        size = min(len(before), len(row))
        differs = np.flatnonzero(before[:size] != row[:size])
        common += int(differs[0]) if len(differs) else size
    return common / sum(map(len, rows))


@dataclass(frozen=True)
class Token:
    """One token as the model sees it."""

    id: int
    text: str
    is_learned: bool
    is_special: bool


def mask_of(report: Report, renderer: Renderer, line: int) -> list[Token]:
    """The tokens of the row that begins on a line, and what of them is learned. Raises Invalid when no row does."""
    for number, content in contents(report):
        if number == line:
            row = renderer.training_row(content)
            return [
                Token(token, renderer.token_text(token), learned, renderer.is_special(token))
                for token, learned in zip(row.tokens, row.is_answer, strict=True)
            ]
    raise Invalid(f"{report.source.uri}: no row begins on line {line}; there are {report.rows:,} rows")
