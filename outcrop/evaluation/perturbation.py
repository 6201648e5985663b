"""Small changes to a prompt that do not change what it asks, and how far answers move with them: Bedrock's robustness.

AWS names the kinds (user guide, "Review metrics for an automated model evaluation job"): lower case, typos of the keyboard, numbers as
words, random capitals, white space added and taken away. Numbers as words are left out here: they change what a table lookup asks.
"""

import re
from collections.abc import Callable, Sequence
from random import Random

# Of the letters, or gaps, so many are changed.
SHARE = 0.1
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {
    key: [
        other for row in KEYS[max(0, at - 1) : at + 2] for other in row[max(0, place - 1) : place + 2] if other != key
    ]
    for at, keys in enumerate(KEYS)
    for place, key in enumerate(keys)
}


def perturbed(text: str, seed: int) -> list[str]:
    """Five versions of a text, always the same for a seed."""
    rng = Random(seed)
    return [
        text.lower(),
        _each(
            text, rng, lambda letter: rng.choice(NEIGHBOURS[letter.lower()]) if letter.lower() in NEIGHBOURS else letter
        ),
        _each(text, rng, lambda letter: letter.swapcase()),
        "".join(letter * 2 if letter == " " and rng.random() < 3 * SHARE else letter for letter in text),
        re.sub(r"(?<=\w) (?=\w)", lambda gap: "" if rng.random() < SHARE else gap.group(), text),
    ]


def _each(text: str, rng: Random, change: Callable[[str], str]) -> str:
    return "".join(change(letter) if letter.isalpha() and rng.random() < SHARE else letter for letter in text)


def word_error_rate(given: str, before: str) -> float:
    """Words to be put in, taken out or exchanged to make one text of the other, in parts of the words of `before`; 0 is the same."""
    new, old = given.split(), before.split()
    if not old:
        return float(bool(new))
    row: Sequence[int] = range(len(new) + 1)
    for number, word in enumerate(old, 1):
        following = [number]
        for place, other in enumerate(new):
            following.append(min(row[place + 1] + 1, following[place] + 1, row[place] + (word != other)))
        row = following
    return row[-1] / len(old)
