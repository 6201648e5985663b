"""Answers -> scores -> a comparison one can believe.

In: answers beside what was wanted. Out: scores of single answers, and means with intervals. The room asks no models.
"""

from outcrop.evaluation import tatqa
from outcrop.evaluation.intervals import Measured, difference, measure
from outcrop.evaluation.scores import contains_values, exact_json, exact_text, fits_schema, token_f1

__all__ = [
    "Measured",
    "contains_values",
    "difference",
    "exact_json",
    "exact_text",
    "fits_schema",
    "measure",
    "tatqa",
    "token_f1",
]
