"""A check of a gigabyte of rows with planted faults: time, memory, what was found. `make bench-check`.

The command is run as a user runs it, in a process of its own; memory is the sum of what it and its children have for
themselves (proportional set size), asked four times a second.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks import record
from benchmarks.planted import FAULTS, plant

BASE = "outcrop.pebble-v1:0"


def main() -> None:
    """Run it and write benchmarks/results/check.json; exit status 1 when a fault is missed, or found where none is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rows.jsonl"
        planted = plant(path, round(chosen.gigabytes * 1e9), every=2500)
        print(f"{planted.rows:,} rows, {path.stat().st_size:,} bytes, {len(planted.faults):,} faults", flush=True)
        command = [sys.executable, "-m", "outcrop", "data", "check", str(path), "--base", BASE, "--json"]
        home = {"OUTCROP_HOME": str(Path(name) / "home")}
        began = time.monotonic()
        with (Path(name) / "found.json").open("wb") as out:
            process = subprocess.Popen(command, stdout=out, env={**os.environ, **home})
            peak = 0
            while process.poll() is None:
                peak = max(peak, memory_of(process.pid))
                time.sleep(0.25)
        seconds = time.monotonic() - began
        found = json.loads((Path(name) / "found.json").read_text())
    kinds = defaultdict(set)
    for finding in found["findings"]:  # a file of this size has more rows than a job takes: that is about no line
        kinds[finding["line"] or 0].add(finding["kind"])
    missed = {line: fault for line, fault in planted.faults.items() if fault[1] not in kinds[line]}
    false = {line: sorted(named) for line, named in kinds.items() if line and line not in planted.faults}
    record.write(
        "check",
        {
            "gigabytes": chosen.gigabytes, "rows": planted.rows, "planted": len(planted.faults), "kinds": len(FAULTS),
            "found": len(planted.faults) - len(missed), "false_alarms": len(false), "seconds": round(seconds, 1),
            "peak_mb": round(peak / 1e6),
        },
    )  # fmt: skip
    print(
        f"{seconds:.1f} s, {peak / 1e6:.0f} MB at most; {len(missed)} missed {dict(list(missed.items())[:5])}, false {dict(list(false.items())[:5])}"
    )
    sys.exit(1 if missed or false else 0)


def memory_of(process: int) -> int:
    """Bytes that a process and its children have, shared pages parted among those who share them."""
    total = 0
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1]) if folder.name.isdigit() else -1
            if folder.name == str(process) or parent == process:
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


if __name__ == "__main__":
    main()
