"""The table of metrics. To add one: write its function in scores.py or here, and add the line. A user's own is FILE.py:FUNCTION or a URL."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from outcrop.errors import Invalid
from outcrop.evaluation import likeness, scores, tatqa
from outcrop.evaluation.cases import Case, Response

Score = Callable[[Response, Case], float | None]
SHARE, COUNT, MONEY = "share", "count", "money"


@dataclass(frozen=True)
class Metric:
    """One line of the table. `score` answers None where a row has nothing to hold the answer against."""

    name: str
    what: str
    score: Score
    form: str = SHARE
    more_is_better: bool = True


def _text(score: Callable[[str, str], float | None]) -> Score:
    """A score of texts as one of a response; rows without a reference have none."""
    return lambda given, case: None if case.reference is None else score(given.text, case.reference)


def _json(score: Callable[[str, dict[str, Any]], float]) -> Score:
    def of(given: Response, case: Case) -> float | None:
        wanted = scores.parsed(case.reference or "")
        return score(given.text, wanted) if isinstance(wanted, dict) else None

    return of


def _schema(given: Response, case: Case) -> float | None:
    schema = case.row.get("schema")
    if not isinstance(schema, dict):
        return None
    document = scores.parsed(given.text)
    return float(document is not None and not likeness.schema_faults(document, schema))


def _tatqa(part: str, given: Response, case: Case) -> float | None:
    if not set(case.row) >= tatqa.KEYS:
        return None
    return float(getattr(tatqa.score_text(given.text, case.row), part))


METRICS = {
    metric.name: metric
    for metric in (
        Metric("exact", "right to the letter, apart from case and surrounding space", _text(scores.exact_text)),
        Metric("contains", "the reference stands in the answer as whole words", _text(scores.contains)),
        Metric("f1", "F1 of the words that answer and reference share", _text(scores.token_f1)),
        Metric("label", "the answer gives the right one of the labels that occur as references", lambda given, case: None),
        Metric("json", "the answer is JSON", lambda given, case: float(scores.parsed(given.text) is not None)),
        Metric("json-exact", "JSON with the reference's keys and values, in any order", _json(scores.exact_json)),
        Metric("fields", "share of the reference's fields that the answer has with the same value", _json(scores.field_accuracy)),
        Metric("schema", "the answer keeps the row's JSON schema (key schema, or --schema)", _schema),
        Metric("number", "the answer comes to the reference's number, to one in a million; number:0.01 to one in a hundred", _text(scores.same_number)),
        Metric("rouge1", "ROUGE-1 F, stemmed", _text(partial(likeness.rouge, "rouge1"))),
        Metric("rouge2", "ROUGE-2 F, stemmed", _text(partial(likeness.rouge, "rouge2"))),
        Metric("rougeL", "ROUGE-L F, stemmed", _text(partial(likeness.rouge, "rougeL"))),
        Metric("bleu", "sentence BLEU", _text(likeness.bleu)),
        Metric("chrf", "sentence chrF", _text(likeness.chrf)),
        Metric("similarity", "cosine of the vectors of answer and reference (--embedder)", lambda given, case: None),
        Metric("tatqa-em", "TAT-QA's exact match (keys answer_type, answer, scale)", partial(_tatqa, "exact")),
        Metric("tatqa-f1", "TAT-QA's F1", partial(_tatqa, "f1")),
        Metric("tatqa-scale", "TAT-QA's scale accuracy", partial(_tatqa, "scale")),
        Metric("tokens-in", "input tokens", lambda given, case: given.input_tokens, COUNT, False),
        Metric("tokens-out", "output tokens, the end of the turn counted", lambda given, case: given.output_tokens, COUNT, False),
        Metric("latency-ms", "milliseconds from question to end of the answer, under the load of the comparison", lambda given, case: given.latency_ms, COUNT, False),
        Metric("cost", "price of 1,000 requests by the price table (--price)", lambda given, case: None, MONEY, False),
    )
}  # fmt: skip
# Always measured, where they are known.
ALWAYS = ("tokens-in", "tokens-out", "latency-ms")
# References are labels when there are at most so many different ones, and each comes so often on average.
MOST_LABELS, FEWEST_A_LABEL, LONGEST_LABEL = 200, 3, 60


def named(names: Sequence[str]) -> list[Metric]:
    """Metrics by name; `number:0.01` is `number` with a tolerance (part of the wanted number). Raises Invalid for what is not in the table."""
    found = []
    for name in names:
        if name.startswith("number:"):
            found.append(_number_within(name))
            continue
        if name not in METRICS:
            raise Invalid(
                f"the metric {name!r} is not known; known are {', '.join(METRICS)}, FILE.py:FUNCTION and http(s)://..."
            )
        found.append(METRICS[name])
    return found


def _number_within(name: str) -> Metric:
    try:
        tolerance = float(name.partition(":")[2])
    except ValueError:
        raise Invalid(f"the metric {name!r}: expected a tolerance, such as number:0.01") from None
    if not 0 <= tolerance <= 1:
        raise Invalid(f"the metric {name!r}: the tolerance must lie between 0 and 1")
    what = f"the answer comes to the reference's number, to {tolerance:g} of it"
    return Metric(name, what, _text(partial(scores.same_number, tolerance=tolerance)))


def fitting(cases: Sequence[Case]) -> list[str]:
    """The metrics that go with what references look like, the first of them the one to judge by."""
    wanted = [case.reference for case in cases if case.reference is not None]
    if all(set(case.row) >= tatqa.KEYS for case in cases):
        return ["tatqa-em", "tatqa-f1"]
    if not wanted:
        return ["json"] if any("schema" in case.row for case in cases) else []
    if all(isinstance(scores.parsed(text), dict) for text in wanted):
        return ["json-exact", "fields", "json", *(["schema"] if any("schema" in case.row for case in cases) else [])]
    if all("####" in text for text in wanted):
        return ["number"]
    labels = set(wanted)
    if (
        len(labels) <= MOST_LABELS
        and len(wanted) >= FEWEST_A_LABEL * len(labels)
        and max(map(len, labels)) <= LONGEST_LABEL
    ):
        return ["label", "exact"]
    return ["exact", "f1"]
