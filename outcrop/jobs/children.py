"""Child processes that die with their parent."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1
# Threads that wait by spinning lose two to five times on a busy machine; nothing may be fetched behind a job's back.
# glibc gives large blocks back to the system at once, and each page of the next one is faulted in anew: keeping them
# saves 7 to 10 % of a training step (135 M shape, one thread of a Xeon).
QUIET = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "PYTHONUNBUFFERED": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "true",
}


def python_child(
    module: str, arguments: Sequence[str], log: IO[bytes], environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """`python -m module arguments` in a process group of its own; on Linux it is killed when this process dies."""
    return child([sys.executable, "-m", module, *arguments], log, {**QUIET, **(environment or {})})


def child(command: Sequence[str], log: IO[bytes] | None, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Any command in a process group of its own, which on Linux is killed when this process dies; without a `log` it
    says what it says where this process does."""
    parent = os.getpid()
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT if log else None,
        start_new_session=True,
        preexec_fn=(lambda: _die_with(parent)) if sys.platform == "linux" else None,
        env={**os.environ, **environment},
    )


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died between fork and here
        os._exit(1)


def tail(path: Path, lines: int = 3) -> str:
    """The last lines of a log that say something."""
    if not path.is_file():
        return ""
    said = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(said[-lines:])
