"""Real texts, so that the starter model has met ordinary English: documents as plain text, questions as chats.

Sources and licences stand in the model card. Sets that our benchmarks measure on (banking77, TAT-QA) are not read.
"""

import csv
import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from outcrop.rendering import Conversation
from recipes.pebble.lessons import SHORT


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def documents(data: Path) -> list[str]:
    """Passages of about 200 words from handbooks, guides and phone calls."""
    wholes = [line["text"] for line in _lines(data / "docs/18f_handbook.jsonl.gz")]
    wholes += [line["text"] for line in _lines(data / "docs/aws_s3_userguide_2023.jsonl.gz")]
    wholes += [line["transcript"] for line in _lines(data / "tickets/call_transcripts_part1.jsonl.gz")]
    passages: list[str] = []
    for whole in wholes:
        clean = re.sub(
            r"<a name[^>]*></a>|\\(?=[-.()_#*+!])|\]\([^)]*\)|\[", "", re.sub(r"\A---.*?---\n", "", whole, flags=re.S)
        )
        passage: list[str] = []
        for block in clean.split("\n\n"):
            passage.append(block.strip())
            if sum(map(len, passage)) > 1200:
                passages.append("\n\n".join(passage)[:2500])
                passage = []
        if passage:
            passages.append("\n\n".join(passage)[:2500])
    return [passage for passage in passages if len(passage) > 100]


def chats(data: Path, rng: random.Random) -> list[Conversation]:
    """Questions with answers by people: sums, frequently asked questions, JSON on request, Wikipedia tables."""
    found: list[Conversation] = []
    for line in _lines(data / "gsm8k/train.jsonl.gz"):
        found.append(Conversation.of(line["question"], re.sub(r"<<.*?>>", "", line["answer"])))
    for line in _lines(data / "json_mode/json_mode_part1.jsonl.gz"):
        question, answer = (message["content"] for message in line["messages"])
        if len(answer) < 1500:
            found.append(Conversation.of(question, answer, system=line["system"]))
    for line in _lines(data / "faq/us_gov_covid_faq_part1.jsonl"):
        if len(line["answer"]) < 1500:
            found.append(Conversation.of(line["question"], line["answer"]))
    with (data / "faq/sagemaker_faqs.csv").open(encoding="utf-8") as file:
        found += [Conversation.of(row[0], row[1].strip()) for row in csv.reader(file) if len(row) == 2]
    for line in _lines(data / "wtq/wtq_training.jsonl.gz"):
        table = line["table"]
        if sum(len(cell) for row in table for cell in row) > 1500:
            continue
        text = "\n".join(" | ".join(cell.replace("\n", " ") for cell in row) for row in table)
        cells = {cell for row in table for cell in row}
        turns: list[str] = []
        for item in line["questions"] if "questions" in line else line["qa"]:
            answer = ", ".join(item["answer"]) if isinstance(item["answer"], list) else str(item["answer"])
            if answer in cells:
                turns += [item["question"] + rng.choice(SHORT), answer]
        if turns:
            turns[0] = f"{text}\n\n{turns[0]}"
            found.append(Conversation.of(*turns))
    return found
