"""What all prompts say alike: a system prompt, a beginning, an end. A tuned model may do without it."""

from collections.abc import Sequence
from dataclasses import dataclass

from outcrop.evaluation import Case
from outcrop.evaluation.cases import asking_instead
from outcrop.rendering import Conversation

# Shorter ones are chance, or not worth a thought (characters).
SHORTEST = 12


@dataclass(frozen=True)
class Parts:
    """The common system prompt, beginning and end of the questions; "" where there is none."""

    system: str
    begin: str
    end: str

    @property
    def are_some(self) -> bool:
        """Whether there is anything to leave out."""
        return bool(self.system or self.begin or self.end)

    @property
    def each(self) -> "list[Parts]":
        """Each part alone."""
        alone = (Parts(self.system, "", ""), Parts("", self.begin, ""), Parts("", "", self.end))
        return [one for one in alone if one.are_some]

    @property
    def named(self) -> str:
        """The parts that there are, in words."""
        parts = {"the system prompt": self.system, "the common beginning": self.begin, "the common end": self.end}
        return ", ".join(name for name, text in parts.items() if text)


def common_parts(cases: Sequence[Case]) -> Parts:
    """What every row has. A part ends at a space or a line's end, so that no word is cut."""
    systems = {case.prompt.system for case in cases}
    system = next(iter(systems)) or "" if len(systems) == 1 else ""
    questions = [case.question for case in cases]
    begin = _beginning(questions)
    begin = begin[: max(begin.rfind(" "), begin.rfind("\n")) + 1]
    rest = [question[len(begin) :] for question in questions]
    end = _beginning([text[::-1] for text in rest])[::-1]
    places = [place for place in (end.find(" "), end.find("\n")) if place >= 0]
    end = end[min(places) :] if places else ""
    whole = len({*questions}) == 1
    return Parts(
        system, begin if len(begin) >= SHORTEST and not whole else "", end if len(end) >= SHORTEST and not whole else ""
    )


def _beginning(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    first, last = min(texts), max(texts)  # what these two share, all between them share
    size = next(
        (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other),
        min(len(first), len(last)),
    )
    return first[:size]


def without_parts(case: Case, parts: Parts) -> Case:
    """The row without them."""
    text = case.question.removeprefix(parts.begin)
    text = text.removesuffix(parts.end) if parts.end else text
    asked = asking_instead(case.prompt, text.strip() or case.question)
    return Case(
        case.line, Conversation(asked.messages, None if parts.system else asked.system), case.reference, case.row
    )
