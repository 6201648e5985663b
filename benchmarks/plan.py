"""What a plan says against what the run then takes, on ten different jobs. `make bench-plan`."""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import record, workload
from outcrop.datasets import Rows
from outcrop.demo.tickets import tickets
from outcrop.jobs.children import python_child
from outcrop.registry.base_models import PEBBLE_FOLDER
from outcrop.rendering import Conversation, Renderer
from outcrop.training.plan import PROGRESS, Plan, Rehearsed, Result, Settings

Job = tuple[str, Rows, Settings]


def jobs(work: Path, data: Path) -> dict[str, Job]:
    """By name: the base's folder, the rows, how."""
    pebble = str(PEBBLE_FOLDER)
    small = str(workload.make_model("15m", work / "model-15m-32000", 32_000))
    large = str(workload.make_model("15m", work / "model-15m-50257", 50_257))
    long = {"early_stopping_patience": 10}

    def drawn(contexts: int, questions: int, context: tuple[int, int] = (500, 900), size: int = 32_000) -> Rows:
        return rows_of(workload.drawn(contexts, questions, size, context))

    found: dict[str, Job] = {
        "starter, short rows, adapters": (pebble, ticket_rows(1500), Settings(epochs=4, batch_rows=32, **long)),
        "starter, short rows, small steps": (pebble, ticket_rows(600), Settings(epochs=3, batch_rows=4, **long)),
        "starter, all weights": (pebble, ticket_rows(1500), Settings(method="full", epochs=4, learning_rate=1e-4, **long)),
        "starter, long rows": (pebble, drawn(150, 1, (1000, 3000), 2000), Settings(epochs=2, batch_rows=8, **long)),
        "15 M, shared contexts": (small, drawn(40, 6), Settings(epochs=1, batch_rows=24, **long)),
        "15 M, nothing shared": (small, drawn(120, 1), Settings(epochs=1, batch_rows=8, **long)),
        "15 M, all weights": (small, drawn(60, 2), Settings(method="full", epochs=1, learning_rate=1e-5, batch_rows=8, **long)),
        "15 M, rank 64, mixed lengths": (small, drawn(150, 1, (20, 1500)), Settings(epochs=1, lora_rank=64, batch_rows=16, **long)),
        "15 M, dropout (by autograd)": (small, drawn(60, 1), Settings(epochs=1, lora_dropout=0.1, batch_rows=8, **long)),
    }  # fmt: skip
    if data.is_dir():
        found["15 M, TAT-QA"] = (
            large,
            rows_of(workload.real("tatqa", data, 240)),
            Settings(epochs=1, batch_rows=32, **long),
        )
    return found


def main() -> None:
    """Run it and write benchmarks/results/plan.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "outcrop-bench")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--many", type=int, default=100_000, help="examples of a large file that is planned")
    parser.add_argument(
        "--only", help="jobs whose names hold this, and nothing is written; or many, for the large file alone"
    )
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    print(f"{'job':34} {'planned s':>10} {'took s':>8} {'off':>6} {'planned GB':>11} {'took GB':>8} {'off':>6}")
    table: list[dict[str, Any]] = []
    for name, (base, rows, settings) in jobs(chosen.work, chosen.data).items():
        if chosen.only and chosen.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            plan = Plan(base=base, settings=settings, threads=chosen.threads, validation_rows=["validation.rows"])
            planned, _ = run(Path(folder) / "plan", rows, msgspec.structs.replace(plan, rehearses_only=True))
            _, result = run(Path(folder) / "run", rows, plan)
        line = {
            "job": name, "planned_s": planned.seconds, "planned_error_s": planned.seconds_error, "took_s": result.seconds,
            "planned_bytes": planned.memory_bytes, "took_bytes": result.peak_memory, "steps": result.step,
            "of_steps": result.steps,
        }  # fmt: skip
        table.append(line)
        time_off, memory_off = (planned.seconds / result.seconds - 1, planned.memory_bytes / result.peak_memory - 1)
        print(f"{name:34} {planned.seconds:10.1f} {result.seconds:8.1f} {time_off:+6.0%} {planned.memory_bytes / 1e9:11.2f} "
              f"{result.peak_memory / 1e9:8.2f} {memory_off:+6.0%}", flush=True)  # fmt: skip
    if chosen.only == "many":
        table = json.loads((record.RESULTS / "plan.json").read_text())["jobs"]
    if chosen.only in (None, "many"):
        record.write("plan", {"jobs": table, "many": many(chosen.work, chosen.many)})


def many(work: Path, number: int) -> dict[str, float]:
    """What `outcrop plan` takes for so many examples of 500 of the starter's tokens: checked, rendered, rehearsed."""
    renderer, draw = Renderer(PEBBLE_FOLDER), random.Random(0)
    texts = [talk["messages"][0]["content"] for talk in (json.loads(ticket.row) for ticket in islice(tickets(3), 400))]
    lengths = {text: renderer.count(text + " ") for text in texts}
    file = work / f"{number}.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for _ in range(number):
            words, tokens = [], 0
            while tokens < 460:
                words.append(draw.choice(texts))
                tokens += lengths[words[-1]]
            lines.write(json.dumps({"prompt": " ".join(words), "completion": draw.choice(texts)[:40]}) + "\n")
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "outcrop", "plan", str(file), "--base", "outcrop.pebble-v1:0", "--json"]
        began = time.monotonic()
        said = subprocess.run(
            command, env={**os.environ, "OUTCROP_HOME": home}, capture_output=True, text=True, check=True
        ).stdout
        took = time.monotonic() - began
    planned = json.loads(said)
    found = {
        "rows": planned["rehearsed"]["rows"], "tokens_per_row": planned["rehearsed"]["tokens"] / 2 / number,
        "file_bytes": file.stat().st_size, "seconds": took, "peak_bytes": planned["planning_bytes"],
    }  # fmt: skip
    print(f"{number:,} examples of {found['tokens_per_row']:.0f} tokens ({found['file_bytes'] / 1e6:.0f} MB): planned in "
          f"{took:.0f} s, at most {found['peak_bytes'] / 1e9:.2f} GB", flush=True)  # fmt: skip
    file.unlink()
    return found


def run(folder: Path, rows: Rows, plan: Plan) -> tuple[Rehearsed, Result]:
    """What the run said before its first step, and how it ended."""
    folder.mkdir()
    rows.write(folder / "train.rows")
    aside = max(2, len(rows) // 20)
    Rows(rows.tokens[: rows.starts[aside]], rows.is_answer[: rows.starts[aside]], rows.starts[: aside + 1]).write(
        folder / "validation.rows"
    )
    plan.write(folder)
    with (folder / "log").open("wb") as log:
        python_child("outcrop.training", [str(folder)], log, {"OMP_NUM_THREADS": str(plan.threads)}).wait()
    result = Result.read(folder)
    assert result is not None, (folder / "log").read_text()
    assert result.status == "completed", result.reason
    return msgspec.json.decode((folder / PROGRESS).read_bytes().splitlines()[0], type=Rehearsed), result


def rows_of(made: list[workload.Row]) -> Rows:
    """Rows of drawn tokens."""
    tokens = [row["prompt"] + row["answer"] for row in made]
    masks = [[False] * len(row["prompt"]) + [True] * len(row["answer"]) for row in made]
    starts = np.cumsum([0, *map(len, tokens)])
    return Rows(np.concatenate([np.array(one, np.int32) for one in tokens]), np.concatenate(masks).astype(bool), starts)


def ticket_rows(number: int) -> Rows:
    """The demo's tickets in the starter model's tokens."""
    renderer = Renderer(PEBBLE_FOLDER)
    talks = [json.loads(ticket.row) for ticket in islice(tickets(3), number)]
    return Rows.of(
        renderer.training_row(Conversation.of(*(m["content"] for m in talk["messages"]), system=talk.get("system")))
        for talk in talks
    )


if __name__ == "__main__":
    main()
