"""Scores of a single answer; more is better, 1.0 is best."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

# A hyphen after a word or a digit is none of the number's: 2019-2020 is no negative number.
NUMBER = re.compile(r"(?:(?<![\w.])[-\u2212])?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
FINAL = re.compile(r"####\s*(.+)")


def exact_text(answer: str, wanted: str) -> float:
    """1.0 when the two agree apart from case and surrounding space."""
    return float(answer.strip().casefold() == wanted.strip().casefold())


def contains(answer: str, wanted: str) -> float:
    """1.0 when the wanted text stands in the answer as whole words, in any case: skill without style."""
    wanted = wanted.strip()
    return float(bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", answer, re.IGNORECASE) is not None)


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
    """The answer as JSON, or None when it is none; a fence of Markdown around it does not count."""
    text = answer.strip()
    if fenced := re.fullmatch(r"```(?:json)?\s*\n(.*?)\n?```", text, re.DOTALL):
        text = fenced.group(1)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def exact_json(answer: str, wanted: Mapping[str, Any]) -> float:
    """1.0 when the answer is JSON with the wanted keys and values, in any order; true is not 1, and 1.0 is."""
    return float(_same(parsed(answer), dict(wanted)))


def field_accuracy(answer: str, wanted: Mapping[str, Any]) -> float:
    """The share of the wanted fields, nested ones by their path, that the answer has with the same value; 0.0 when it is no JSON object."""
    given = parsed(answer)
    if not isinstance(given, dict):
        return 0.0
    gold, found = _leaves(wanted), _leaves(given)
    return (
        sum(path in found and _same(found[path], value) for path, value in gold.items()) / len(gold)
        if gold
        else float(given == wanted)
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if parts is None:
        return {path: value}
    return {found: leaf for name, part in parts for found, leaf in _leaves(part, (*path, name)).items()}


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


def number_of(text: str) -> float | None:
    """The number that a text comes to: what follows its last `####`, as GSM8K's answers end, else the last number that stands in it.

    Commas between digits are left out, so that 1,200 is 1200. None when there is no number.
    """
    final = FINAL.findall(text)
    found = NUMBER.findall(final[-1] if final else text)
    try:
        number = float(found[-1].replace(",", "").replace("\u2212", "-")) if found else None
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None


def same_number(answer: str, wanted: str, tolerance: float = 1e-6) -> float | None:
    """1.0 when the numbers that answer and reference come to differ by `tolerance` of the wanted one at most (by itself when that is 0).

    None when the reference has no number.
    """
    given, gold = number_of(answer), number_of(wanted)
    if gold is None:
        return None
    if given is None:
        return 0.0
    return float(abs(given - gold) <= tolerance * (abs(gold) or 1.0))


def label_of(answer: str, labels: Sequence[str]) -> str | None:
    """The label that an answer gives: the one that it is, apart from case and punctuation around it, else the only one that stands in it.

    A label within a longer one that stands there does not count. None when there is none, or more than one.
    """
    plain: dict[str, str] = {}
    said = bare(answer)
    for label in labels:
        plain.setdefault(
            bare(label), label
        )  # of labels that differ in case or punctuation alone the first stands for all
    if said in plain:
        return plain[said]
    standing = [one for one in plain if one and one in said and re.search(rf"(?<!\w){re.escape(one)}(?!\w)", said)]
    longest = [one for one in standing if not any(one != other and one in other for other in standing)]
    return plain[longest[0]] if len(longest) == 1 else None


def bare(text: str) -> str:
    """A label without case, superfluous space and punctuation around it."""
    return " ".join(text.casefold().split()).strip(" .,:;!?\"'`*()[]{}<>")
