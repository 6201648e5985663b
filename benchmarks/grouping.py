"""What drawing rows of one context together does to the result: same rows, grouped and one by one. `make bench-grouping`.

The starter model on TAT-QA's and WikiTableQuestions' own questions, adapters, five seeds each way. The loss is that on
questions about tables that were not trained on, at the last step; the seconds are CPU seconds of the whole run.
"""

import argparse
import resource
import statistics
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import record, workload
from benchmarks.plan import rows_of
from outcrop.datasets import Rows
from outcrop.jobs.children import python_child
from outcrop.registry.base_models import PEBBLE_FOLDER
from outcrop.rendering import Conversation, Renderer
from outcrop.training.plan import PROGRESS, Evaluated, Plan, Progress, Settings

ROWS, ASIDE, LONGEST = 480, 120, 700
# Student's t for four degrees of freedom, 95 %, two sides.
T_FOUR = 2.776


def main() -> None:
    """Run it and write benchmarks/results/grouping.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=5)
    chosen = parser.parse_args()
    figures: dict[str, Any] = {}
    for name in ("tatqa", "wtq"):
        rows, aside = rows_of_set(name, chosen.data)
        found: dict[str, list[tuple[float, float]]] = {"grouped": [], "one by one": []}
        for seed in range(chosen.seeds):
            for way, runs in found.items():
                runs.append(train(rows, aside, seed, groups=way == "grouped"))
                print(f"{name:8} seed {seed} {way:11} loss {runs[-1][0]:.4f}  {runs[-1][1]:.0f} CPU-s", flush=True)
        losses = {way: [loss for loss, _ in runs] for way, runs in found.items()}
        differences = [a - b for a, b in zip(losses["grouped"], losses["one by one"], strict=True)]
        spread = T_FOUR * statistics.stdev(differences) / len(differences) ** 0.5
        seconds = {way: statistics.median(took for _, took in runs) for way, runs in found.items()}
        figures[name] = {
            "rows": len(rows), "losses": losses, "difference": statistics.fmean(differences), "interval_95": spread,
            "cpu_s": seconds,
        }  # fmt: skip
        means = {way: statistics.fmean(values) for way, values in losses.items()}
        print(
            f"{name}: grouped {means['grouped']:.4f}, one by one {means['one by one']:.4f}; difference "
            f"{figures[name]['difference']:+.4f} +- {spread:.4f} nats (95 %, paired by seed); "
            f"{seconds['one by one'] / seconds['grouped']:.1f} times the work one by one"
        )
        record.write("grouping", figures)


def rows_of_set(name: str, data: Path) -> tuple[Rows, Rows]:
    """Training and validation rows in the starter's tokens; no table is in both."""
    renderer = Renderer(PEBBLE_FOLDER)
    made: list[workload.Row] = []
    for prompt, answer in workload.REAL[name](data):
        row = renderer.training_row(Conversation.of(prompt, answer.strip()))
        if len(row.tokens) > LONGEST:
            continue
        first = row.is_answer.index(True)
        made.append({"prompt": row.tokens[:first], "answer": row.tokens[first:]})
        if len(made) == ROWS + ASIDE + 20:
            break
    cut = ROWS
    while made[cut]["prompt"][:60] == made[cut - 1]["prompt"][:60]:  # to the end of a table
        cut += 1
    return rows_of(made[:cut]), rows_of(made[cut : cut + ASIDE])


def train(rows: Rows, aside: Rows, seed: int, groups: bool) -> tuple[float, float]:
    """Validation loss at the last step, and CPU seconds."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name)
        rows.write(run / "train.rows")
        aside.write(run / "validation.rows")
        settings = Settings(
            epochs=2, batch_rows=16, learning_rate=2e-3, seed=seed, shares_prefixes=groups, early_stopping_patience=100,
            evaluations_per_epoch=1,
        )  # fmt: skip
        Plan(base=str(PEBBLE_FOLDER), settings=settings, validation_rows=["validation.rows"], threads=1).write(run)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with (run / "log").open("wb") as log:
            python_child("outcrop.training", [str(run)], log, {"OMP_NUM_THREADS": "1"}).wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = [msgspec.json.decode(line, type=Progress) for line in (run / PROGRESS).read_bytes().splitlines()]
        loss = [line.losses[0] for line in lines if isinstance(line, Evaluated)][-1]
        return loss, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
