"""Which learning rate and batch size suit the starter model, by size and kind of the set. `make bench-rates`.

For sets of real and made rows the best validation loss of a run for each batch size at each rate, mean over seeds. It is
where the defaults come from (docs/experiments/rates.md), and a check of the advice that sets of under 100 rows react to the
batch size and sets of 1,000 to 10,000 rows to the learning rate. For continued pre-training the loss on general rows is
taken, too.
"""

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import torch

from benchmarks import record, workload
from benchmarks.plan import rows_of, ticket_rows
from outcrop.datasets import Rows
from outcrop.datasets.prepare import windows
from outcrop.errors import Diverged
from outcrop.registry.base_models import PEBBLE_FOLDER
from outcrop.rendering import Conversation, Renderer
from outcrop.training.loop import run
from outcrop.training.plan import PROGRESS, Evaluated, Plan, Progress, Settings

BATCHES = (4, 8, 16, 32, 64)
RATES = {
    "lora": (7.5e-4, 1.5e-3, 3e-3, 6e-3, 1.2e-2),
    "full": (1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3),
}
# Longest row of continued pre-training (tokens).
CONTEXT = 512


@dataclass(frozen=True)
class Set:
    """What is learned and what is held out. `general`, if any, is only watched."""

    rows: Rows
    aside: Rows
    epochs: int
    seeds: int
    method: str = "lora"
    general: Rows | None = None
    batches: tuple[int, ...] = BATCHES


def main() -> None:
    """Run it and write benchmarks/results/rates.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", help="sets whose names hold this; the others' figures are kept")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    result = record.RESULTS / "rates.json"
    every: dict[str, Any] = json.loads(result.read_text())["sets"] if chosen.only and result.exists() else {}
    for name, one in sets(chosen.data):
        if chosen.only and chosen.only not in name:
            continue
        began = time.monotonic()
        cells = []
        for batch, rate in product((b for b in one.batches if 2 * b <= len(one.rows)), RATES[one.method]):
            runs = [train(one, seed, rate, batch) for seed in range(one.seeds)]
            losses, general = [loss for loss, _ in runs], [watched for _, watched in runs if watched is not None]
            cells.append(
                {
                    "batch": batch,
                    "rate": rate,
                    "losses": losses,
                    "general": statistics.fmean(general) if general else None,
                }
            )
            print(f"{name:34} batch {batch:3} rate {rate:<8g} loss {statistics.fmean(losses):.4f}"
                  + (f"  general {statistics.fmean(general):.4f}" if general else ""), flush=True)  # fmt: skip
        every[name] = {
            "rows": len(one.rows), "epochs": one.epochs, "method": one.method, "cells": cells,
            "base": train(one, 0, 0.0, 64), "minutes": (time.monotonic() - began) / 60,
        }  # fmt: skip
        by_batch, by_rate = reactions(cells)
        print(
            f"{name}: over batch sizes the loss spans {by_batch:.0%} of its best, over rates {by_rate:.0%}", flush=True
        )
        record.write("rates", {"sets": every})


def reactions(cells: list[dict[str, Any]]) -> tuple[float, float]:
    """How far the loss lies apart over batch sizes, each at its best rate, and over rates, each at its best batch size; as
    parts of the best loss. A run that diverged counts as twice the best."""
    means = {(cell["batch"], cell["rate"]): statistics.fmean(cell["losses"]) for cell in cells}
    best = min(means.values())

    def span(axis: int) -> float:
        values = sorted({place[axis] for place in means})
        losses = [min(min(loss, 2 * best) for place, loss in means.items() if place[axis] == value) for value in values]
        return (max(losses) - min(losses)) / best

    return span(0), span(1)


def sets(data: Path) -> Iterator[tuple[str, Set]]:
    """By name, made when they are asked for."""
    held = ticket_rows(4300)
    aside = part(held, 4000, 4100)
    yield "tickets, 64 rows", Set(part(held, 0, 64), aside, 5, 2)
    yield "tickets, 256 rows", Set(part(held, 0, 256), aside, 5, 2)
    yield "tickets, 1,000 rows", Set(part(held, 0, 1000), aside, 2, 2)
    if data.is_dir():
        queries = banking(data)
        aside = part(queries, 4000, 4200)
        yield "banking77, 64 rows", Set(part(queries, 0, 64), aside, 5, 2)
        yield "banking77, 256 rows", Set(part(queries, 0, 256), aside, 5, 2)
        yield "banking77, 1,000 rows", Set(part(queries, 0, 1000), aside, 5, 1)
        yield "banking77, 1,000 rows, full", Set(part(queries, 0, 1000), aside, 5, 1, "full")
        yield "banking77, 4,000 rows", Set(part(queries, 0, 4000), aside, 2, 1)
        pages, held_pages = handbook(data)
        general = part(held, 4000, 4100)
        yield "handbook pages, lora", Set(pages, held_pages, 1, 1, "lora", general)
        yield "handbook pages, full", Set(pages, held_pages, 1, 1, "full", general, (4, 8))


def part(rows: Rows, first: int, last: int) -> Rows:
    """Rows first to last - 1."""
    begin, end = rows.starts[first], rows.starts[last]
    return Rows(rows.tokens[begin:end], rows.is_answer[begin:end], rows.starts[first : last + 1] - begin)


def banking(data: Path) -> Rows:
    """4,400 questions with their intents, without the list of intents."""
    renderer = Renderer(PEBBLE_FOLDER)
    made: list[workload.Row] = []
    for prompt, answer in workload.REAL["banking77"](data):
        text = prompt.partition("\n\n")[2].removesuffix("\nIntent:")
        row = renderer.training_row(Conversation.of(text, answer.strip()))
        first = row.is_answer.index(True)
        made.append({"prompt": row.tokens[:first], "answer": row.tokens[first:]})
        if len(made) == 4400:
            break
    return rows_of(made)


def handbook(data: Path) -> tuple[Rows, Rows]:
    """The 18F handbook's pages as continued pre-training takes them, every eighth page held out."""
    renderer = Renderer(PEBBLE_FOLDER)
    with gzip.open(data / "docs/18f_handbook.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]

    def rendered(chosen: list[str]) -> Rows:
        return Rows.of(row for text in chosen for row in windows(renderer.training_row(text), CONTEXT))

    return rendered([t for n, t in enumerate(texts) if n % 8]), rendered(texts[::8])


def train(one: Set, seed: int, rate: float, batch: int) -> tuple[float, float | None]:
    """The best validation loss of a run, and the general rows' loss at its end; infinity when it diverged."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        validation = [one.aside] if one.general is None else [one.aside, one.general]
        names = [f"validation-{number}.rows" for number in range(len(validation))]
        one.rows.write(folder / "train.rows")
        for file, rows in zip(names, validation, strict=True):
            rows.write(folder / file)
        settings = Settings(
            method=one.method, epochs=one.epochs, batch_rows=batch, learning_rate=rate, seed=seed, saves_every_s=1e9,
            early_stopping_patience=100, evaluations_per_epoch=1,
        )  # fmt: skip
        Plan(base=str(PEBBLE_FOLDER), settings=settings, validation_rows=names, threads=1).write(folder)
        try:
            run(folder, lambda: False)
        except Diverged:
            return float("inf"), None
        lines = [msgspec.json.decode(line, type=Progress) for line in (folder / PROGRESS).read_bytes().splitlines()]
        losses = [line.losses for line in lines if isinstance(line, Evaluated)]
        return min(entry[0] for entry in losses), losses[-1][1] if one.general is not None else None


if __name__ == "__main__":
    main()
