"""A training run killed thirty times at random moments against one left alone. `make bench-kills`.

SIGKILL comes at a moment drawn from the whole life of the child process: while it imports, rehearses, learns, evaluates,
writes. In the end weights, checkpoints and metrics must be equal bit for bit.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import record
from outcrop.datasets import Rows
from outcrop.demo.tickets import tickets
from outcrop.jobs.children import python_child
from outcrop.registry.base_models import PEBBLE_FOLDER
from outcrop.rendering import Conversation, Renderer
from outcrop.training.plan import PROGRESS, Plan, Result, Settings

CLOCK = ("tokens_per_s", "seconds_left", "seconds", "seconds_error", "memory_bytes")


def main() -> None:
    """Run it and write benchmarks/results/kills.json; exit status 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        plain, killed = (make_run(Path(name) / one) for one in ("plain", "killed"))
        child(plain).wait()
        result = Result.read(plain)
        assert result is not None, (plain / "log").read_text()
        print(f"left alone: {result.steps} steps in {result.seconds:.0f} s", flush=True)
        draw = random.Random(chosen.seed)
        moments: list[str] = []
        while Result.read(killed) is None:
            running = child(killed)
            if len(moments) < chosen.kills:
                time.sleep(draw.uniform(0.2, 6.0))
                if running.poll() is None:
                    running.send_signal(signal.SIGKILL)
                    moments.append(where(killed))
                    print(f"kill {len(moments)}: {moments[-1]}", flush=True)
            running.wait()
        same = {
            "metrics": metrics(plain) == metrics(killed),
            "steps": [line["step"] for line in metrics(killed) if line["kind"] == "step"]
            == list(range(1, result.steps + 1)),
            "weights": files(plain) == files(killed),
        }
    record.write("kills", {"kills": len(moments), "steps": result.steps, "at": moments, "equal": same})
    print(
        f"{len(moments)} kills: " + ", ".join(f"{what} {'equal' if yes else 'DIFFERENT'}" for what, yes in same.items())
    )
    sys.exit(0 if all(same.values()) and len(moments) == chosen.kills else 1)


def make_run(folder: Path) -> Path:
    """The starter model on tickets, with validation rows."""
    folder.mkdir()
    renderer = Renderer(PEBBLE_FOLDER)
    talks = [json.loads(ticket.row) for ticket in islice(tickets(3), 400)]
    rendered = [
        renderer.training_row(
            Conversation.of(*(message["content"] for message in talk["messages"]), system=talk.get("system"))
        )
        for talk in talks
    ]
    Rows.of(rendered[:360]).write(folder / "train.rows")
    Rows.of(rendered[360:]).write(folder / "validation.rows")
    settings = Settings(
        epochs=16,
        batch_rows=8,
        learning_rate=1e-4,
        saves_every_s=0.3,
        early_stopping_threshold=0.0,
        early_stopping_patience=10,
        lora_dropout=0.05,
    )
    Plan(base=str(PEBBLE_FOLDER), settings=settings, validation_rows=["validation.rows"], threads=1).write(folder)
    return folder


def child(folder: Path) -> Any:
    """The training process, as a job starts it."""
    with (folder / "log").open("ab") as log:
        return python_child("outcrop.training", [str(folder)], log, {"OMP_NUM_THREADS": "1"})


def metrics(folder: Path) -> list[dict[str, Any]]:
    """What the run said, without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / PROGRESS).read_bytes().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]


def where(folder: Path) -> str:
    """How far a run had come."""
    lines = (folder / PROGRESS).read_bytes().splitlines() if (folder / PROGRESS).exists() else []
    return f"after step {json.loads(lines[-1]).get('step', 0)}" if lines else "before the first step"


def files(folder: Path) -> dict[str, bytes]:
    """Every checkpoint's bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in (folder / "checkpoints").rglob("*.safetensors")
    }


if __name__ == "__main__":
    main()
