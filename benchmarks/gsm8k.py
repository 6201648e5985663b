"""GSM8K: maths in words, the report's maths sample; base, examples, tuned, both. `make bench-gsm8k`.

Cobbe et al., 2021 (MIT). The training file alone is at hand: seeded, 300 of its rows are held out and 100 watch. Scored by the number after
####, or the last one.
"""

import argparse
import gzip
import json
import random

from benchmarks.figure import Figure, draw, parse

TRAINED = 2000


def main() -> None:
    """Run it and write benchmarks/results/gsm8k.json."""
    chosen = parse(argparse.ArgumentParser(description=__doc__))
    with gzip.open(chosen.data / "gsm8k/train.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows = [{"prompt": row["question"], "referenceResponse": row["answer"]} for row in rows]
    random.Random(8).shuffle(rows)
    held_out, validation, train = rows[:300], rows[300:400], rows[400 : 400 + TRAINED]
    note = f"{len(train):,} of {len(rows) - 400:,} rows are trained on; the starter model has read rows of this file in its pre-training (its card), held-out ones among them"
    draw(Figure("gsm8k", train, validation, held_out, train[:100], ("number",), max_tokens=200, note=note), chosen)


if __name__ == "__main__":
    main()
