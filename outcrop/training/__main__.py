"""The child process: `python -m outcrop.training DIRECTORY`, or one of several: `... DIRECTORY RANK SIZE`, or by torchrun."""

import signal
import sys
from pathlib import Path

from outcrop.errors import OutcropError
from outcrop.training.plan import STOP, Plan, Result


def main(directory: Path, rank: int = 0, size: int = 1) -> int:
    """Run the plan and leave result.json. Exit status 0 when the run ended as planned or was stopped, else 1."""
    try:
        import torch

        from outcrop.training.group import Group
        from outcrop.training.loop import run
    except ImportError as error:
        Result(status="failed", reason=f"training needs {error.name}; install outcrop[train]").write(directory)
        return 1

    stopped = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    plan = Plan.read(directory)
    if plan.threads:
        torch.set_num_threads(plan.threads)
    group = Group(rank, size)
    try:
        group = Group.join(directory, plan.device, rank, size)
        result = run(directory, lambda: stopped or (directory / STOP).exists(), group)
    except OutcropError as error:
        if group.is_first:
            Result(status="failed", reason=error.message).write(directory)
        return 1
    group.leave()
    if group.is_first:
        result.write(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:4])))
