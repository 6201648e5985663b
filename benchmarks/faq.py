"""A data set made from the 18F handbook, and what tuning on it does on documents that were held out. `make bench-faq`.

The teacher is the stand-in that ships with Outcrop (rules, no model) unless another OpenAI-shaped one is given. Rows hold the passage
before the question: what can be learned by a small model is to find the answer and say it in the handbook's words, not the facts of
documents that it has never seen. Handbook: CC0.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import record
from benchmarks.tuning import Question, Scores, compare
from outcrop.evaluation import scores

SYSTEM = "Answer from the passage, in its own words."
STAND_IN = "outcrop.synthesis.stand_in"


def make(data: Path, folder: Path, teacher: str, endpoint: str) -> None:
    """Make the pairs with the command that a user types."""
    documents = folder / "handbook.jsonl"
    documents.write_bytes(gzip.decompress((data / "docs/18f_handbook.jsonl.gz").read_bytes()))
    command = [
        sys.executable,
        "-m",
        "outcrop",
        "data",
        "synthesize",
        str(documents),
        "--out",
        str(folder / "made"),
        "--teacher",
        teacher,
    ]
    command += [
        "--endpoint",
        endpoint,
        "--with-passage",
        "--system",
        SYSTEM,
        "--validation",
        "10",
        "--test",
        "25",
        "--pairs",
        "4",
    ]
    subprocess.run(command, check=True, env={**os.environ, "OUTCROP_HOME": str(folder / "home")})


def score(answer: str, wanted: str) -> Scores:
    """Token F1, and whether the answer is the wanted one."""
    return {"F1": scores.token_f1(answer, wanted), "exact": scores.exact_text(answer, wanted)}


def main() -> None:
    """Run it and write benchmarks/results/faq.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--teacher", default="stand-in")
    parser.add_argument(
        "--endpoint", default="", help="an OpenAI-shaped address; the stand-in is started when left out"
    )
    parser.add_argument("--epochs", default="6")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stand_in = None
        if not chosen.endpoint:
            stand_in = subprocess.Popen([sys.executable, "-m", STAND_IN], stdout=subprocess.PIPE, text=True)
            assert stand_in.stdout is not None
            chosen.endpoint = stand_in.stdout.readline().strip()
        try:
            make(chosen.data, folder, chosen.teacher, chosen.endpoint)
        finally:
            if stand_in is not None:
                stand_in.kill()
                stand_in.wait()
        parts = {
            part: (folder / f"made/{part}.jsonl").read_text().splitlines() for part in ("train", "validation", "test")
        }
        rejected = len((folder / "made/rejected.jsonl").read_text().splitlines())
    held_out = [json.loads(row)["messages"] for row in parts["test"]]
    figures = compare(
        parts["train"], parts["validation"], [Question(SYSTEM, turns[0]["content"], turns[1]["content"]) for turns in held_out], score,
        {"method": "full", "epochCount": chosen.epochs, "batchSize": "8", "earlyStoppingPatience": "6"}, most_tokens=200,
    )  # fmt: skip
    pairs = sum(map(len, parts.values()))
    print(
        record.write(
            "faq",
            {**figures, "teacher": chosen.teacher, "pairs": pairs, "rejected": rejected, "held_out": len(held_out)},
        )
    )


if __name__ == "__main__":
    main()
