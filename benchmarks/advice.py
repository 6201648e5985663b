"""Advice on six tasks whose right answer is known by construction, three seeds each. `make bench-advice`."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.tasks import TASKS, write

out = Console()


def main() -> None:
    """Run `outcrop advise` as a user does, print what it said, and write benchmarks/results/advice.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--base", default="outcrop.pebble-v1:0")
    chosen = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for task in TASKS:
            for seed in range(chosen.seeds):
                folder = Path(name) / f"{task.name}-{seed}"
                rows, documents = write(task, folder, seed, chosen.data)
                arguments = [str(rows), "--base", chosen.base, "--out", str(folder / "advice"), "--seed", str(seed)]
                arguments += [part for document in documents for part in ("--documents", document)]
                arguments += ["--set", f"epochCount={task.epochs}"] if task.epochs else []
                began = time.monotonic()
                environment = {"OUTCROP_HOME": str(Path(name) / "home"), "PATH": "/usr/bin:/bin"}
                done = subprocess.run(
                    [sys.executable, "-m", "outcrop", "advise", *arguments],
                    capture_output=True,
                    text=True,
                    env=environment,
                )
                if done.returncode:
                    raise SystemExit(f"{task.name}, seed {seed}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
                said = json.loads((folder / "advice/advice.json").read_text())
                ways = {option["name"]: round(100 * option["figure"]["mean"], 1) for option in said["options"]}
                one = {
                    "task": task.name, "seed": seed, "choice": said["choice"], "is_right": said["choice"] in task.right, "right": list(task.right),
                    "seconds": round(time.monotonic() - began, 1), "ways": ways, "sentence": said["sentence"],
                }  # fmt: skip
                found.append(one)
                out.print(
                    f"{task.name}, seed {seed}: {one['choice']} ({'right' if one['is_right'] else 'WRONG'}), {one['seconds']:.0f} s, {ways}",
                    highlight=False,
                    soft_wrap=True,
                )
    table = Table("task", "right advice", "given", "seconds")
    for task in TASKS:
        mine = [one for one in found if one["task"] == task.name]
        given = Counter(one["choice"] for one in mine)
        seconds = sorted(one["seconds"] for one in mine)
        table.add_row(
            task.name,
            " or ".join(task.right),
            ", ".join(f"{choice} {count}x" for choice, count in given.items()),
            f"{seconds[0]:.0f} to {seconds[-1]:.0f}",
        )
    out.print(table)
    right = sum(one["is_right"] for one in found)
    out.print(f"{right} of {len(found)} right; {sum(one['seconds'] for one in found):,.0f} s in all")
    tasks = [{"task": task.name, "why": task.why, "right": list(task.right)} for task in TASKS]
    print(
        record.write("advice", {"base": chosen.base, "tasks": tasks, "runs": found, "right": right, "of": len(found)})
    )


if __name__ == "__main__":
    main()
