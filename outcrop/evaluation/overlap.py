"""Rows of an evaluation that stand in the training data: what a model does on them is memory, not skill."""

from collections.abc import Sequence
from dataclasses import dataclass

from outcrop.datasets.likeness import Index
from outcrop.evaluation.cases import Case
from outcrop.rendering import Conversation


@dataclass(frozen=True)
class Overlap:
    """Places (from 0) of the evaluation's rows whose prompt training has: word for word, or nearly."""

    same: list[int]
    near: list[int]

    @property
    def all(self) -> set[int]:
        """Both."""
        return {*self.same, *self.near}


def overlap(cases: Sequence[Case], trained: Sequence[Conversation | str]) -> Overlap:
    """Hold the questions of an evaluation against the prompts of training data, system prompts apart; plain text is held against whole."""
    index = Index(list(dict.fromkeys(text for content in trained for text in _prompts(content))))
    asked = [_asked(case.prompt) for case in cases]
    same = {number for number, text in enumerate(asked) if index.same(text) is not None}
    near = [number for number, found in enumerate(index.near(asked)) if found is not None and number not in same]
    return Overlap(sorted(same), near)


def _asked(prompt: Conversation) -> str:
    return "\n".join(message.text for message in prompt.messages)


def _prompts(content: Conversation | str) -> list[str]:
    """Every prompt that a row of training data teaches an answer to."""
    if isinstance(content, str):
        return [content]
    return [
        "\n".join(message.text for message in content.messages[:number])
        for number, turn in enumerate(content.messages)
        if turn.role == "assistant"
    ]
