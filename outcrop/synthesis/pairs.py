"""Questions and answers on a passage: asked of a teacher, read from what it says, and taken only when they hold.

Grounding is judged by words: an answer's content words must be in the passage, its numbers all of them. That is a net for invention,
not a proof of truth; a judge (any teacher) can be asked besides.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import TemplateError
from jinja2.sandbox import SandboxedEnvironment

from outcrop.errors import Invalid
from outcrop.rendering import Conversation
from outcrop.synthesis.documents import Passage

TEMPLATES = Path(__file__).parent / "templates"
# Shares of content words that must be in the passage: of an answer, and of a question, which may ask in other words.
ANSWER_SHARE, QUESTION_SHARE = 0.8, 0.4
FEWEST_WORDS, MOST_QUESTION_WORDS, MOST_ANSWER_WORDS = 3, 60, 250
# Words that say nothing of what a text is about.
COMMON = frozenset(
    "a about after all also an and any are as at be because been before but by can could did do does each for from get had has have "
    "how if in into is it its may more most must not of on one only or other our out over shall should so some such than that the "
    "their them then there these they this those to under up use used very was we were what when where which while who whom whose why "
    "will with within would you your i me my he she his her us no yes just like make made many much need".split()
)
POINTING = re.compile(
    r"\b(this|the|above|given|following) (passage|text|document|excerpt|paragraph|section|article)\b|\baccording to (it|the author)\b",
    re.IGNORECASE,
)
WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class Pair(msgspec.Struct, frozen=True):
    """A question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Templates:
    """What a teacher is told, from files that a user may replace: pairs.txt and judge.txt, in Jinja's sandbox."""

    pairs: str
    judge: str

    @classmethod
    def read(cls, folder: Path | None = None) -> "Templates":
        """From a folder; what it does not have is ours. Raises Invalid for a folder that is not there."""
        if folder is not None and not folder.is_dir():
            raise Invalid(f"{folder}: there is no such folder of templates")

        def text(name: str) -> str:
            own = folder / name if folder is not None else None
            return (own if own is not None and own.is_file() else TEMPLATES / name).read_text(encoding="utf-8")

        return cls(text("pairs.txt"), text("judge.txt"))

    def ask_for_pairs(self, passage: Passage, count: int) -> Conversation:
        """What is asked for a passage."""
        title = " - ".join(dict.fromkeys(filter(None, [passage.title, passage.heading])))
        return Conversation.of(_filled(self.pairs, passage=passage.text, title=title, count=count))

    def ask_to_judge(self, passage: Passage, pair: Pair) -> Conversation:
        """What a judge is asked of a pair."""
        return Conversation.of(_filled(self.judge, passage=passage.text, question=pair.question, answer=pair.answer))


def _filled(template: str, **values: Any) -> str:
    try:
        return SandboxedEnvironment().from_string(template).render(**values)
    except TemplateError as error:
        raise Invalid(f"the template cannot be filled: {error}") from None


def read_pairs(said: str) -> list[Pair]:
    """The pairs in a teacher's words: a JSON list, whatever stands around it, or objects one by one; [] when there are none."""
    begin, end = said.find("["), said.rfind("]")
    if 0 <= begin < end:
        try:
            return msgspec.json.decode(said[begin : end + 1], type=list[Pair])
        except (msgspec.DecodeError, msgspec.ValidationError):
            pass
    found = []
    for match in re.finditer(r"\{[^{}]*\}", said):
        try:
            found.append(msgspec.json.decode(match.group(), type=Pair))
        except (msgspec.DecodeError, msgspec.ValidationError):
            continue
    return found


def fault_of(pair: Pair, passage: Passage) -> str:
    """Why a pair is not taken; "" when it is."""
    question, answer = _words(pair.question), _words(pair.answer)
    if len(question) < FEWEST_WORDS or len(question) > MOST_QUESTION_WORDS or not pair.question.rstrip().endswith("?"):
        return "the question is not well-formed"
    if not answer or len(answer) > MOST_ANSWER_WORDS:
        return "the answer is empty or too long"
    if POINTING.search(pair.question) or POINTING.search(pair.answer):
        return "it points to a passage that its reader will not see"
    there = {_stem(word) for word in _words(f"{passage.title} {passage.heading} {passage.text}")}
    if _share(question, there) < QUESTION_SHARE:
        return "the question is not about the passage"
    numbers = set(NUMBER.findall(passage.text))
    if any(number not in numbers for number in NUMBER.findall(pair.answer)):
        return "the answer has a number that the passage does not have"
    if _share(answer, there) < ANSWER_SHARE:
        return "the answer is not in the passage"
    if _words(pair.question) == _words(pair.answer):
        return "the answer repeats the question"
    return ""


def _words(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text)]


def _stem(word: str) -> str:
    """A word without its commonest endings, so that "agency's" and "agencies" meet."""
    word = re.sub(r"['\u2019]s?$", "", word)
    for ending, other in (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""), ("e", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: len(word) - len(ending)] + other
    return word


def _share(words: list[str], there: set[str]) -> float:
    """The share of the content words that are there; 1 when there are none."""
    content = [_stem(word) for word in words if word not in COMMON]
    return sum(word in there for word in content) / len(content) if content else 1.0
