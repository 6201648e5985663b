"""What a comparison takes beside its answers: 5,000 rows, four arms of the starter model, against asking alone. `make bench-compare`.

Arms: base, tuned, both with two worked examples. Asking alone is the same rows through the same engine, as many at once, and nothing kept or
scored. The two take turns; the ratio is the median of the rounds.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from benchmarks import record
from benchmarks.figure import Figure, tune
from outcrop import evaluation
from outcrop.datasets.source import local_file
from outcrop.registry import Registry
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.synthesis import CatalogueTeacher
from outcrop.workflows.answering import own_engine
from outcrop.workflows.compare import Compare, Sampling, Wanted, Way, ask_all
from recipes.pebble import words
from recipes.pebble.words import names

BASE = "outcrop.pebble-v1:0"
SHOTS = 2


def row(rng: random.Random) -> dict[str, str]:
    people = names(rng, rng.randint(2, 5))
    values = {person: rng.choice(words.CITIES) for person in people}
    person = rng.choice(people)
    listed = "\n".join(f"{one}: {value}" for one, value in values.items())
    return {
        "prompt": f"{listed}\n\nWhat is the city of {person}?",
        "referenceResponse": f"The city of {person} is {values[person]}.",
        "category": str(len(people)),
    }


def main() -> None:
    """Take turns, print, and write benchmarks/results/compare.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    rng = random.Random(5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        held_out, train, validation = ([row(rng) for _ in range(count)] for count in (chosen.rows, 300, 40))
        figure = Figure("compare", train, validation, held_out, train, ("exact",))
        settings = Settings(home=str(folder / "home"))
        options: Any = SimpleNamespace(base=BASE, method="lora", epochs="2")
        model, _ = tune(figure, options, settings.folder, folder)
        _write(folder / "rows.jsonl", held_out)
        _write(folder / "train.jsonl", train)
        ways = [Way(one, shots=shots) for one in (BASE, model) for shots in (0, SHOTS)]
        storage = Storage(settings.folder)
        registry = Registry(storage)
        wanted = Wanted(
            str(folder / "rows.jsonl"),
            ways,
            ("exact", "f1"),
            str(folder / "train.jsonl"),
            slices=("category",),
            sampling=Sampling(32),
        )
        cases = evaluation.read_cases(local_file(folder / "rows.jsonl"))
        shots = evaluation.read_cases(local_file(folder / "train.jsonl"))[:SHOTS]

        def alone() -> None:
            with own_engine(storage, registry, settings, "bench", BASE, model) as asking:
                for way in ways:
                    asked = [evaluation.with_shots(case, shots[: way.shots]) for case in cases]
                    ask_all(CatalogueTeacher(asking, way.model), asked, Sampling(32), settings.engine_slots)

        rounds = []
        for number in range(chosen.rounds):
            began = time.monotonic()
            alone()
            middle = time.monotonic()
            Compare(storage, registry, settings)(wanted, folder / f"comparison-{number}")
            rounds.append((middle - began, time.monotonic() - middle))
            Console().print(
                f"round {number + 1}: asking alone {rounds[-1][0]:.1f} s, comparing {rounds[-1][1]:.1f} s, ratio {rounds[-1][1] / rounds[-1][0]:.3f}"
            )
    ratio = statistics.median(compared / asked for asked, compared in rounds)
    seconds = [statistics.median(one[place] for one in rounds) for place in (0, 1)]
    Console().print(
        f"{chosen.rows:,} rows, {len(ways)} arms: {seconds[1]:.1f} s against {seconds[0]:.1f} s of asking alone: {ratio:.2f} times"
    )
    print(
        record.write(
            "compare",
            {
                "rows": chosen.rows,
                "arms": len(ways),
                "alone_s": seconds[0],
                "compared_s": seconds[1],
                "ratio": ratio,
                "rounds": rounds,
            },
        )
    )


def _write(path: Path, rows: list[dict[str, str]]) -> None:

    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
