"""Six tasks whose right advice is known by construction: what is made of them, and why that is right.

The starter model as a base: it answers questions on what stands in the prompt, in sentences; it follows worked examples; it knows no facts.
"""

import csv
import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from outcrop.advice.recommendation import FEW_SHOT, NOTHING, PROMPT, RETRIEVAL, TUNE, TUNE_FEW_SHOT
from outcrop.demo.tickets import tickets
from recipes.pebble import words
from recipes.pebble.lessons import FACTS, value_of
from recipes.pebble.words import names

Row = dict[str, str]


@dataclass(frozen=True)
class Task:
    """`right` are the answers that count as right; `rows` of (rng) gives rows and documents."""

    name: str
    why: str
    right: tuple[str, ...]
    make: Callable[[random.Random, Path], tuple[list[Row], list[str]]]
    epochs: str = ""


def house_form(rng: random.Random, data: Path) -> tuple[list[Row], list[str]]:
    codes = {"account": "ACC", "billing": "BIL", "defect": "DEF", "delivery": "DEL", "return": "RET"}
    levels = {"high": "P1", "medium": "P2", "low": "P3"}
    drawn = tickets(rng.randrange(10**6))
    rows = []
    for _ in range(ROWS):
        ticket = next(drawn)
        form = ticket.form
        answer = f"{levels[form['urgency']]}/{codes[form['category']]} [{form['order']}] {form['product'].upper()}"
        rows.append({"prompt": ticket.text, "referenceResponse": answer, "category": form["category"]})
    return rows, []


def easy(rng: random.Random, data: Path) -> tuple[list[Row], list[str]]:
    rows = []
    for _ in range(ROWS):
        people = names(rng, rng.randint(2, 3))
        values = {person: rng.choice(words.COLORS) for person in people}
        person = rng.choice(people)
        listed = "\n".join(f"{one}: {value}" for one, value in values.items())
        rows.append(
            {
                "prompt": f"{listed}\n\nWhat is the color of {person}?",
                "referenceResponse": f"The color of {person} is {values[person]}.",
            }
        )
    return rows, []


def facts(rng: random.Random, data: Path) -> tuple[list[Row], list[str]]:
    people = list(dict.fromkeys(words.made_up(rng) for _ in range(ROWS // 2)))
    kinds = ("city", "animal", "food", "day")
    rows, documents = [], []
    for person in people:
        told = []
        for kind in rng.sample(kinds, 2):
            value = value_of(rng, kind)
            sentences, _, questions, _, answer = FACTS[kind]
            told.append(sentences[0].format(n=person, v=value))
            rows.append(
                {
                    "prompt": questions[0].format(n=person),
                    "referenceResponse": answer.format(n=person, v=value),
                    "category": kind,
                }
            )
        documents.append(" ".join(told))
    rng.shuffle(rows)
    return rows, documents


def shown(rng: random.Random, data: Path) -> tuple[list[Row], list[str]]:
    before = rng.choice(("Answer", "Result", "Found"))
    rows = []
    for _ in range(ROWS):
        people = names(rng, rng.randint(1, 2))
        values = {person: rng.choice(words.CITIES) for person in people}
        person = rng.choice(people)
        listed = "\n".join(f"{one}: {value}" for one, value in values.items())
        rows.append(
            {"prompt": f"{listed}\n\nWhat is the city of {person}?", "referenceResponse": f"{before}: {values[person]}"}
        )
    return rows, []


def intents(rng: random.Random, data: Path) -> tuple[list[Row], list[str]]:
    with gzip.open(data / "tickets/banking77_train.csv.gz", "rt", encoding="utf-8") as file:
        rows = [
            {"prompt": row["text"], "referenceResponse": row["category"].replace("_", " ")}
            for row in csv.DictReader(file)
        ]
    rng.shuffle(rows)
    return rows, []


def noise(rng: random.Random, data: Path) -> tuple[list[Row], list[str]]:
    drawn = tickets(rng.randrange(10**6))
    return [
        {"prompt": next(drawn).text, "referenceResponse": rng.choice(("north", "south", "east", "west"))}
        for _ in range(ROWS)
    ], []


ROWS = 700
TASKS = (
    Task(
        "a house form",
        "tickets into codes of the house: no prompt says them, examples are too few to show all of them",
        (TUNE, TUNE_FEW_SHOT),
        house_form,
    ),
    Task("easy", "the starter model answers such questions on a list already", (PROMPT,), easy),
    Task(
        "facts in documents",
        "people whose facts stand in documents alone; training rows are about other facts",
        (RETRIEVAL,),
        facts,
    ),
    Task("shown by examples", "the answer's form is one that examples show, and nothing else does", (FEW_SHOT,), shown),
    Task("77 labels", "banking77: more labels than examples fit a prompt", (TUNE, TUNE_FEW_SHOT), intents, epochs="4"),
    Task("noise", "labels drawn at random", (NOTHING,), noise),
)


def write(task: Task, folder: Path, seed: int, data: Path) -> tuple[Path, list[str]]:
    """A task's rows and documents as files, as a user has them; the answer is their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, documents = task.make(random.Random(f"{task.name}-{seed}"), data)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if not documents:
        return folder / "rows.jsonl", []
    lines = [json.dumps({"path": str(number), "text": text}) for number, text in enumerate(documents)]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "rows.jsonl", [str(folder / "documents.jsonl")]
