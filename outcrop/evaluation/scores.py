"""Scores of a single answer; more is better, 1.0 is best."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def exact_text(answer: str, wanted: str) -> float:
    """1.0 when the two agree apart from case and surrounding space."""
    return float(answer.strip().casefold() == wanted.strip().casefold())


def token_f1(answer: str, wanted: str) -> float:
    """F1 of the words that answer and reference have in common, each as often as it stands in both, without case and punctuation.

    1.0 when both have no word, 0.0 when one has none (as in SQuAD's evaluation; Rajpurkar et al., 2016, articles kept).
    """
    given, gold = (Counter(re.findall(r"\w+", text.casefold())) for text in (answer, wanted))
    if not given or not gold:
        return float(given == gold)
    common = (given & gold).total()
    return 2 * common / (given.total() + gold.total())


def parsed(answer: str) -> Any:
    """The answer as JSON, or None when it is none."""
    try:
        return json.loads(answer)
    except ValueError:
        return None


def exact_json(answer: str, wanted: Mapping[str, Any]) -> float:
    """1.0 when the answer is JSON with the wanted keys and values, in any order."""
    return float(parsed(answer) == dict(wanted))


def contains_values(answer: str, wanted: Mapping[str, Any]) -> float:
    """1.0 when every wanted value stands somewhere in the answer, whatever its form: skill without style."""
    text = answer.casefold()
    return float(all(str(value).casefold() in text for value in wanted.values()))


def fits_schema(answer: str, schema: Mapping[str, Sequence[str] | None]) -> float:
    """1.0 when the answer is a JSON object with exactly the schema's keys, all strings, each from its list if it has one."""
    document = parsed(answer)
    if not isinstance(document, dict) or set(document) != set(schema):
        return 0.0
    return float(
        all(
            isinstance(document[key], str) and (allowed is None or document[key] in allowed)
            for key, allowed in schema.items()
        )
    )
