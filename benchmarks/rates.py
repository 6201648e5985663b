"""Which learning rate and batch size suit the starter model, by size of the set. `make bench-rates`.

For sets of real and made rows: the validation loss after training with adapters, for each rate at batch 16 and for each
batch size at each rate, mean over seeds. It is where the defaults come from, and a check of the advice that sets of under
100 rows react to the batch size and sets of 1,000 to 10,000 rows to the learning rate.
"""

import argparse
import statistics
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import record, workload
from benchmarks.grouping import rows_of_set
from benchmarks.plan import rows_of, ticket_rows
from outcrop.datasets import Rows
from outcrop.jobs.children import python_child
from outcrop.registry.base_models import PEBBLE_FOLDER
from outcrop.rendering import Conversation, Renderer
from outcrop.training.plan import Plan, Result, Settings

RATES = (7.5e-4, 1.5e-3, 3e-3, 6e-3, 1.2e-2)
BATCHES = (4, 16, 64)


def main() -> None:
    """Run it and write benchmarks/results/rates.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=2)
    chosen = parser.parse_args()
    every: dict[str, Any] = {}
    for name, (rows, aside, epochs) in sets(chosen.data).items():
        small = len(rows) <= 200
        figures: dict[str, float] = {}
        for batch, rate in product(BATCHES if name.startswith("tickets") else (16,), RATES):
            losses = [train(rows, aside, seed, rate, batch, epochs) for seed in range(chosen.seeds)]
            figures[f"batch {batch}, rate {rate:g}"] = statistics.fmean(losses)
            print(f"{name:22} batch {batch:3} rate {rate:<8g} loss {statistics.fmean(losses):.4f}  "
                  f"({', '.join(f'{loss:.4f}' for loss in losses)})", flush=True)  # fmt: skip
        every[name] = {"rows": len(rows), "epochs": epochs, "losses": figures, "is_small": small}
        record.write("rates", every)


def sets(data: Path) -> dict[str, tuple[Rows, Rows, int]]:
    """Training rows, validation rows and epochs, by name."""
    held = ticket_rows(2300)
    aside = part(held, 2000, 2100)
    found = {
        "tickets, 80 rows": (part(held, 0, 80), aside, 6),
        "tickets, 2,000 rows": (part(held, 0, 2000), aside, 2),
    }
    if data.is_dir():
        found["banking77, 800 rows"] = (*banking(data), 3)
        found["TAT-QA, 480 rows"] = (*rows_of_set("tatqa", data), 2)
    return found


def part(rows: Rows, first: int, last: int) -> Rows:
    """Rows first to last - 1."""
    begin, end = rows.starts[first], rows.starts[last]
    return Rows(rows.tokens[begin:end], rows.is_answer[begin:end], rows.starts[first : last + 1] - begin)


def banking(data: Path) -> tuple[Rows, Rows]:
    """800 and 150 questions with their intents, without the list of intents."""
    renderer = Renderer(PEBBLE_FOLDER)
    made: list[workload.Row] = []
    for prompt, answer in workload.REAL["banking77"](data):
        text = prompt.partition("\n\n")[2].removesuffix("\nIntent:")
        row = renderer.training_row(Conversation.of(text, answer.strip()))
        first = row.is_answer.index(True)
        made.append({"prompt": row.tokens[:first], "answer": row.tokens[first:]})
        if len(made) == 950:
            break
    return rows_of(made[:800]), rows_of(made[800:])


def train(rows: Rows, aside: Rows, seed: int, rate: float, batch: int, epochs: int) -> float:
    """The best validation loss of a run."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name)
        rows.write(run / "train.rows")
        aside.write(run / "validation.rows")
        settings = Settings(
            epochs=epochs, batch_rows=batch, learning_rate=rate, seed=seed, early_stopping_patience=100,
            evaluations_per_epoch=2,
        )  # fmt: skip
        Plan(base=str(PEBBLE_FOLDER), settings=settings, validation_rows=["validation.rows"], threads=1).write(run)
        with (run / "log").open("wb") as log:
            python_child("outcrop.training", [str(run)], log, {"OMP_NUM_THREADS": "1"}).wait()
        result = Result.read(run)
        assert result is not None, (run / "log").read_text()
        return result.validation_losses[0] if result.status == "completed" else float("nan")


if __name__ == "__main__":
    main()
