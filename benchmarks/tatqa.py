"""TAT-QA dev: questions on a table and its text, base against tuned. `make bench-tatqa`.

Zhu et al., ACL 2021 (CC BY 4.0); split by table as dev_split_by_table_uid.json says; scored as the official scorer does.
Rows whose prompt does not fit the starter's context are left out of training and counted as failed in the evaluation.
"""

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.tuning import Question, compare
from outcrop.evaluation import tatqa
from outcrop.registry.base_models import PEBBLE_FOLDER
from outcrop.rendering import Conversation, Renderer

SYSTEM = "Answer from the table and the text. Value only."
LONGEST = 2000  # tokens of a training row: longer ones cost minutes each on two cores


def prompt_of(context: dict[str, Any], question: dict[str, Any]) -> str:
    """Table, text, question."""
    table = "\n".join(" | ".join(cell.strip() for cell in row) for row in context["table"]["table"])
    text = "\n".join(paragraph["text"] for paragraph in context["paragraphs"])
    return f"{table}\n\n{text}\n\n{question['question']}"


def answer_of(question: dict[str, Any]) -> str:
    """The gold answer as text: several spans joined by `; `, the scale behind."""
    answer = question["answer"]
    items = answer if isinstance(answer, list) else [answer]
    return "; ".join(map(str, items)) + (f" {question['scale']}" if question["scale"] else "")


def score(answer: str, question: dict[str, Any]) -> dict[str, float]:
    """EM and F1 of an answer in the form of `answer_of`."""
    scale = next((name for name in ("thousand", "million", "billion", "percent") if answer.endswith(f" {name}")), "")
    items = answer.removesuffix(f" {scale}").split("; ") if scale else answer.split("; ")
    found = tatqa.score(
        question["answer_type"], question["answer"], question["scale"], items if answer.strip() else None, scale
    )
    return {"EM": found.exact, "F1": found.f1}


def main() -> None:
    """Run it and write benchmarks/results/tatqa.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--method", default="full")
    chosen = parser.parse_args()
    with gzip.open(chosen.data / "tatqa/tatqa_dataset_dev.json.gz", "rt", encoding="utf-8") as file:
        contexts = json.load(file)
    split = json.loads((chosen.data / "tatqa/dev_split_by_table_uid.json").read_text())
    renderer = Renderer(PEBBLE_FOLDER)
    parts: dict[str, list[tuple[str, dict[str, Any]]]] = {"train": [], "validation": []}
    left_out = 0
    for context in contexts:
        part = "train" if context["table"]["uid"] in split["train"] else "validation"
        for question in context["questions"]:
            prompt = prompt_of(context, question)
            row = renderer.training_row(Conversation.of(prompt, answer_of(question), system=SYSTEM))
            if part == "train" and len(row.tokens) > LONGEST:
                left_out += 1
                continue
            parts[part].append((prompt, question))
    print(f"{left_out} training rows are longer than {LONGEST} tokens and left out")

    def line(prompt: str, question: dict[str, Any]) -> str:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer_of(question)}]
        return json.dumps({"system": SYSTEM, "messages": messages})

    aside = parts["train"][:60]
    figures = compare(
        [line(*row) for row in parts["train"][60:]], [line(*row) for row in aside],
        [Question(SYSTEM, prompt, question) for prompt, question in parts["validation"]], score,
        {"method": chosen.method, "epochCount": chosen.epochs, "batchSize": "16", "earlyStoppingPatience": "4"}, most_tokens=48,
    )  # fmt: skip
    print(record.write("tatqa", {**figures, "left_out": left_out}))


if __name__ == "__main__":
    main()
