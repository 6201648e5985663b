"""Prompt, few-shot, retrieval or fine-tuning: what the measured arms say one should do.

In: the scores of each way on the same held-out rows, and what each costs. Out: one recommendation, its reasons as numbers, and what the
conference table of "when to tune" says for this task. The room asks no models and trains none.
"""

from outcrop.advice.curve import Curve, fit
from outcrop.advice.page import page
from outcrop.advice.parts import Parts, common_parts, without_parts
from outcrop.advice.recommendation import Advice, Option, Reasons, Ways, advise
from outcrop.advice.retrieval import Retriever, with_passages
from outcrop.advice.shape import shape_share, shapes_of
from outcrop.advice.terms import Probe, Terms, known, probes

__all__ = [
    "Advice", "Curve", "Option", "Parts", "Probe", "Reasons", "Retriever", "Terms", "Ways", "advise", "common_parts", "fit", "known", "page", "probes",
    "shape_share", "shapes_of", "with_passages", "without_parts",
]  # fmt: skip
