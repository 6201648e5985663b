"""What the machine has to give."""

import subprocess
import sys
import time

import pytest

from outcrop.machine import available_cpus, free_memory, idle_cpus


def test_processors_are_counted_as_the_process_may_use_them() -> None:
    assert 1 <= idle_cpus(0.05) <= available_cpus()
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from outcrop.machine import available_cpus, idle_cpus"
    done = subprocess.run(
        [sys.executable, "-c", f"{one}; print(available_cpus(), idle_cpus(0.05))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.skipif(available_cpus() < 2, reason="with one processor there is nothing to leave free")
def test_a_busy_processor_is_left_to_its_work() -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(available_cpus() - 1)]
    try:
        time.sleep(0.3)
        assert idle_cpus(0.5) == 1
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_there_is_memory_to_use() -> None:
    assert 10_000_000 < free_memory() < 1 << 62
