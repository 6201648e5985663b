"""banking77: 77 intents of banking customers' questions, base against tuned. `make bench-banking77`.

Casanueva et al., 2020 (CC BY 4.0). The training file's own split: seeded, one row in five held out.
"""

import argparse
import csv
import gzip
import json
import random
from pathlib import Path

from benchmarks import record
from benchmarks.tuning import Question, compare

SYSTEM = "Name the intent of the customer's question."


def main() -> None:
    """Run it and write benchmarks/results/banking77.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--epochs", default="4")
    parser.add_argument("--method", default="full")
    chosen = parser.parse_args()
    with gzip.open(chosen.data / "tickets/banking77_train.csv.gz", "rt", encoding="utf-8") as file:
        rows = [(row["text"], row["category"].replace("_", " ")) for row in csv.DictReader(file)]
    random.Random(77).shuffle(rows)
    aside = len(rows) // 5
    held_out, validation, train = rows[:aside], rows[aside : aside + 300], rows[aside + 300 :]

    def line(row: tuple[str, str]) -> str:
        messages = [{"role": "user", "content": row[0]}, {"role": "assistant", "content": row[1]}]
        return json.dumps({"system": SYSTEM, "messages": messages})

    figures = compare(
        [line(row) for row in train], [line(row) for row in validation],
        [Question(SYSTEM, text, intent) for text, intent in held_out[: chosen.held_out]],
        lambda answer, intent: {"accuracy": float(answer.strip() == intent)},
        {"method": chosen.method, "epochCount": chosen.epochs, "batchSize": "32", "earlyStoppingPatience": "6"}, most_tokens=24,
    )  # fmt: skip
    print(record.write("banking77", figures))


if __name__ == "__main__":
    main()
