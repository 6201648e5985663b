"""Answers -> scores -> a comparison one can believe.

In: answers beside what was wanted. Out: scores of single answers, means and paired differences with intervals, tests, and a page.
The room asks no models: who does hands it what they said.
"""

from outcrop.evaluation import tatqa
from outcrop.evaluation.cases import Case, Response, asking_instead, question_of, read_cases, value_at, with_shots
from outcrop.evaluation.classification import classify, label_scores
from outcrop.evaluation.comparison import Arm, Comparison, Questions
from outcrop.evaluation.graders import grader, is_grader
from outcrop.evaluation.intervals import Measured, difference, measure, relative
from outcrop.evaluation.likeness import cosines
from outcrop.evaluation.metrics import ALWAYS, METRICS, Metric, fitting, named
from outcrop.evaluation.overlap import Overlap, overlap
from outcrop.evaluation.page import page
from outcrop.evaluation.scores import contains_values, exact_json, exact_text, fits_schema, token_f1

__all__ = [
    "ALWAYS", "METRICS", "Arm", "Case", "Comparison", "Measured", "Metric", "Overlap", "Questions", "Response", "asking_instead", "classify", "contains_values",
    "cosines", "difference", "exact_json", "exact_text", "fits_schema", "fitting", "grader", "is_grader", "label_scores", "measure", "named",
    "overlap", "page", "question_of", "read_cases", "relative", "tatqa", "token_f1", "value_at", "with_shots",
]  # fmt: skip
