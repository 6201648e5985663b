"""Prompts that a teacher makes up: only whole ones, new ones, of a like length; the same again at a second try."""

import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from outcrop.registry import Registry
from outcrop.rendering import Conversation
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.synthesis import MADE, Prompt, Said
from outcrop.workflows.distill import Distill

WORDS = "amber birch cedar delta ember fjord grove heron inlet jetty knoll lagoon marsh north olive pearl".split()


class Teacher:
    """Makes up a good prompt, one that does not end, one that came before, and one that is far too long, in turns."""

    name = "teacher"

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, asked: Conversation, max_tokens: int, temperature: float = 0.0, seed: int | None = None) -> Said:
        self.asked += 1
        assert seed is not None
        assert "Task 1:" in asked.messages[0].text
        words = random.Random(seed).sample(WORDS, 4)
        good = f"Is the {words[0]} by the {words[1]} {words[2]} {words[3]}?"
        said = (good, good, "How old is the amber house?", good * 20)[seed % 4]
        return Said(said, seed % 4 != 1, 10, 5)


class Job:
    """What a running job may say and hear."""

    def __init__(self) -> None:
        self.wants_stop, self.is_lost = threading.Event(), threading.Event()

    def event(self, **_: Any) -> None: ...

    def check(self) -> None: ...


def test_made_up_prompts_are_whole_new_and_of_a_like_length(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "home")
    distill = Distill(storage, Registry(storage), Settings(home=tmp_path / "home"))
    prompts = [
        Prompt(n, Conversation.of(f"How old is the {word} house?", system="Be brief."), "")
        for n, word in enumerate(WORDS)
    ]

    def expand(teacher: Teacher) -> list[Prompt]:
        return distill._expand(prompts, 8, teacher, tmp_path, Job(), Counter())  # type: ignore[arg-type]

    first = Teacher()
    made = expand(first)
    assert 6 <= len(made) <= 8
    texts = [one.asked.messages[0].text for one in made]
    assert len(set(texts)) == len(made)
    assert all(text.startswith("Is the ") and text.count("?") == 1 for text in texts)
    assert not {text for text in texts if text.endswith("house?")}
    assert {(one.number - 10_000_000) % 4 for one in made} == {
        0
    }  # the others did not end, came before, or were too long
    assert {(one.asked.system, one.place, one.golden) for one in made} == {("Be brief.", MADE, None)}
    second = Teacher()
    assert expand(second) == made
    assert second.asked == 0
