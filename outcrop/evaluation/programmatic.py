"""Bedrock's programmatic metrics by task type: what each computes here, and which are refused, in words.

Source: AWS user guide, "Model evaluation task types in Amazon Bedrock" and "Review metrics for an automated model evaluation job".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from outcrop.evaluation import scores
from outcrop.evaluation.cases import Case, Response
from outcrop.evaluation.metrics import METRICS
from outcrop.evaluation.perturbation import word_error_rate

ACCURACY, ROBUSTNESS, TOXICITY = "Builtin.Accuracy", "Builtin.Robustness", "Builtin.Toxicity"
# Outcrop's own metrics in an evaluation job: Outcrop.exact is `exact` of the table.
OWN = "Outcrop."
ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True)
class Programmatic:
    """A metric of a task: of an answer, and, where `perturbs`, of the answers to changed prompts besides."""

    name: str
    what: str
    perturbs: bool
    score: Callable[[str, Sequence[str], Case], float | None]
    more_is_better: bool = True


def nlp_f1(answer: str, wanted: str) -> float:
    """Word F1 without articles, as question answering is scored (Rajpurkar et al., 2016)."""
    plain = [" ".join(word for word in text.split() if word.casefold() not in ARTICLES) for text in (answer, wanted)]
    return scores.token_f1(*plain)


def knows(answer: str, wanted: str) -> float:
    """1.0 when the answer says the fact: the reference, or one of several parted by <OR>, stands in it."""
    return max(scores.contains(answer, one) for one in wanted.split("<OR>"))


Quality = Callable[[str, str], float]
QUALITIES: dict[str, tuple[Quality, str]] = {
    "Generation": (knows, "the reference stands in the response"),
    "QuestionAndAnswer": (nlp_f1, "F1 of the words of response and reference"),
    "Classification": (scores.contains, "the response gives the reference label"),
}
REFUSED = {
    (
        "Summarization",
        ACCURACY,
    ): "is BERTScore, whose model Outcrop does not have; use a judge (evaluatorModelConfig), or the metric Outcrop.rougeL",
    (
        "Summarization",
        ROBUSTNESS,
    ): "is a difference of BERTScores, whose model Outcrop does not have; use a judge, or task type QuestionAndAnswer",
}
TOXIC = "needs a classifier of toxicity, which Outcrop does not have, and a list of bad words would be no honest one; use a judge with Builtin.Harmfulness"


def find(task: str, name: str) -> Programmatic | str:
    """The metric, or why there is none: a sentence that goes on after the metric's name."""
    if name.startswith(OWN):
        metric = METRICS.get(name.removeprefix(OWN))
        if metric is None or name.removeprefix(OWN) in (
            "label",
            "similarity",
            "cost",
            "latency-ms",
            "tokens-in",
            "tokens-out",
        ):
            return f"is not one of Outcrop's metrics of single answers: {', '.join(f'{OWN}{one}' for one in METRICS if one not in ('label', 'similarity', 'cost', 'latency-ms', 'tokens-in', 'tokens-out'))}"
        return Programmatic(name, metric.what, False, _own(name.removeprefix(OWN)))
    if name == TOXICITY:
        return TOXIC
    if name not in (ACCURACY, ROBUSTNESS):
        return f"is not known without an evaluator model; known are {ACCURACY}, {ROBUSTNESS}, and Outcrop's own, such as {OWN}exact"
    if (task, name) in REFUSED:
        return REFUSED[task, name]
    if task not in QUALITIES:
        return (
            f"is not defined for the task type {task}; it is for {', '.join(QUALITIES)}. Or use a judge, or {OWN}exact"
        )
    quality, what = QUALITIES[task]
    if name == ACCURACY:
        return Programmatic(
            name,
            what,
            False,
            lambda answer, others, case: None if case.reference is None else quality(answer, case.reference),
        )
    if task == "Generation":
        return Programmatic(
            name,
            "word error rate of the responses to changed prompts",
            True,
            lambda answer, others, case: fmean(word_error_rate(other, answer) for other in others) if others else None,
            False,
        )

    def moved(answer: str, others: Sequence[str], case: Case) -> float | None:
        if case.reference is None or not others:
            return None
        before = quality(answer, case.reference)
        return fmean(abs(before - quality(other, case.reference)) for other in others)

    return Programmatic(name, f"how far the score moves when the prompt is changed: {what}", True, moved, False)


def _own(name: str) -> Callable[[str, Sequence[str], Case], float | None]:

    return lambda answer, others, case: METRICS[name].score(Response(answer), case)
