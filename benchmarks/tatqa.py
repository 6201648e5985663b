"""TAT-QA dev: questions on a table and its text; base, examples, tuned, both. `make bench-tatqa`.

Zhu et al., ACL 2021 (CC BY 4.0); split by table as dev_split_by_table_uid.json says; scored as the official scorer does, questions on one
table drawn together. Rows whose prompt does not fit the base's context are left out of training and counted as failed in the evaluation.
"""

import argparse
import gzip
import json
from typing import Any

from benchmarks.figure import Figure, draw, parse
from outcrop.evaluation import tatqa
from outcrop.registry.base_models import PEBBLE_FOLDER
from outcrop.rendering import Conversation, Renderer

SYSTEM = "Answer from the table and the text. Value only."
LONGEST = 2000  # tokens of a training row: longer ones cost minutes each on two cores
SHORTEST_SHOWN = 60  # examples are from the shortest training rows, so that there is room for them


def prompt_of(context: dict[str, Any], question: dict[str, Any]) -> str:
    """Table, text, question."""
    table = "\n".join(" | ".join(cell.strip() for cell in row) for row in context["table"]["table"])
    text = "\n".join(paragraph["text"] for paragraph in context["paragraphs"])
    return f"{table}\n\n{text}\n\n{question['question']}"


def main() -> None:
    """Run it and write benchmarks/results/tatqa.json."""
    chosen = parse(argparse.ArgumentParser(description=__doc__))
    with gzip.open(chosen.data / "tatqa/tatqa_dataset_dev.json.gz", "rt", encoding="utf-8") as file:
        contexts = json.load(file)
    split = json.loads((chosen.data / "tatqa/dev_split_by_table_uid.json").read_text())
    renderer = Renderer(PEBBLE_FOLDER)
    parts: dict[str, list[tuple[int, dict[str, Any]]]] = {"train": [], "validation": []}
    for context in contexts:
        part = "train" if context["table"]["uid"] in split["train"] else "validation"
        for question in context["questions"]:
            prompt, answer = prompt_of(context, question), tatqa.written(question["answer"], question["scale"])
            size = len(renderer.training_row(Conversation.of(prompt, answer, system=SYSTEM)).tokens)
            keys = {key: question[key] for key in ("answer_type", "answer_from", "answer", "scale")}
            parts[part].append(
                (size, {"prompt": prompt, "referenceResponse": answer, "table": context["table"]["uid"], **keys})
            )
    short = [(size, row) for size, row in parts["train"] if size <= LONGEST]
    left_out = len(parts["train"]) - len(short)
    shown = [row for _, row in sorted(short[60:], key=lambda pair: pair[0])[:SHORTEST_SHOWN]]
    draw(
        Figure(
            "tatqa", [row for _, row in short[60:]], [row for _, row in short[:60]], [row for _, row in parts["validation"]], shown,
            ("tatqa-em", "tatqa-f1"), ("answer_type", "answer_from"), "table", SYSTEM,
            note=f"{left_out} training rows are longer than {LONGEST} tokens and left out",
        ),
        chosen,
    )  # fmt: skip


if __name__ == "__main__":
    main()
