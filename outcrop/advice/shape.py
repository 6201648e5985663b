"""The form of answers apart from what they say: whether an answer looks like one of the references."""

import json
import re
from collections import Counter
from collections.abc import Sequence

from outcrop.evaluation import scores

# A form that fewer references have (share) is an exception, not the form.
COMMON = 0.02


def shape(text: str) -> str:
    """A text's form: of JSON objects their keys and kinds of values; else its marks, with words and numbers as such, many as one."""
    document = scores.parsed(text)
    if isinstance(document, dict | list):
        return json.dumps(_kinds(document), sort_keys=True)
    plain = re.sub(r"\d[\d.,]*", "0", text.strip())
    plain = re.sub(r"[^\W\d_]+", "w", plain)
    return re.sub(r"(w)([ ,]+w)+", r"\1+", plain)[:200]


def _kinds(value: object) -> object:
    if isinstance(value, dict):
        return {key: _kinds(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_kinds(value[0])] if value else []
    return type(value).__name__


def shapes_of(references: Sequence[str]) -> set[str]:
    """The forms that references have. Labels, of which there are few, are forms of their own."""
    if len(set(references)) * 3 <= len(references):
        return set(references)
    counts = Counter(map(shape, references))
    return {one for one, count in counts.items() if count >= max(2, COMMON * len(references))} or set(counts)


def shape_share(answers: Sequence[str], shapes: set[str]) -> list[float]:
    """1.0 for each answer that has one of the forms, or is one of the labels."""
    return [float(answer.strip() in shapes or shape(answer) in shapes) for answer in answers]
