"""What this machine has to give, now."""

import os
import time
from pathlib import Path


def available_cpus() -> int:
    """Processors that this process may use: its affinity, and the cgroup's quota where there is one."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()[:2]
        if limit != "max":
            cpus = min(cpus, max(1, int(int(limit) / int(period))))
    return cpus


def idle_cpus(over_s: float = 0.3) -> int:
    """Of the processors that this process may use, how many nobody was using just now; one at least.

    Two threads on a machine whose other processor is busy wait for each other, and are slower than one.
    """
    before = _idle_ticks()
    time.sleep(over_s)
    after = _idle_ticks()
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    idle = [
        (after[cpu][0] - before[cpu][0]) / max(1, after[cpu][1] - before[cpu][1])
        for cpu in mine & before.keys() & after.keys()
    ]
    return min(available_cpus(), max(1, round(sum(idle)))) if idle else available_cpus()


def _idle_ticks() -> dict[int, tuple[int, int]]:
    """By processor: idle and all ticks since the machine started; nothing where /proc/stat is not to be read."""
    path = Path("/proc/stat")
    found = {}
    for line in path.read_text(encoding="ascii").splitlines() if path.is_file() else []:
        name, *ticks = line.split()
        if name.startswith("cpu") and name[3:].isdigit():
            counted = [int(tick) for tick in ticks[:8]]
            found[int(name[3:])] = (counted[3] + counted[4], sum(counted))
    return found


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, or of its control group if that has less."""
    text = Path("/proc/meminfo").read_text(encoding="ascii") if Path("/proc/meminfo").exists() else ""
    free = next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("MemAvailable")), 1 << 62)
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()) + _file_cache())
    return free


def _file_cache() -> int:
    """Bytes of files that the control group holds in memory and gives back when asked."""
    path = Path("/sys/fs/cgroup/memory.stat")
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.split()[0] in ("inactive_file", "active_file"))
