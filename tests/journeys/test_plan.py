"""`outcrop plan` says what a job would take, and what it would fail with."""

import json
import os
import subprocess
from itertools import islice
from pathlib import Path

import pytest

from outcrop.demo.tickets import tickets

pytestmark = pytest.mark.slow
BASE = "outcrop.pebble-v1:0"


def plan(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["outcrop", "plan", *arguments], env={**os.environ, "OUTCROP_HOME": str(home), "COLUMNS": "160"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(ticket.row + "\n" for ticket in islice(tickets(3), 40)))
    return path


def test_a_plan_has_tokens_steps_memory_and_time_with_an_error(tmp_path: Path, file: Path) -> None:
    done = plan(tmp_path / "home", str(file), "--base", BASE, "--set", "batchSize=8", "--set", "epochCount=3", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    found = said["rehearsed"]
    assert (found["rows"], found["steps"]) == (40, 15)
    assert found["computed_tokens"] < found["tokens"], "the system prompt is shared"
    assert found["seconds"] > 0 < found["seconds_error"]
    assert 5e7 < found["memory_bytes"] < 5e9
    assert said["hyperparameters"]["batchSize"] == "8"
    assert not list((tmp_path / "home" / "runs").iterdir())
    told = plan(tmp_path / "home", str(file), "--base", BASE).stdout
    assert "none is cut" in told
    assert "give or take" in told


def test_a_plan_fails_with_what_the_job_would_fail_with(tmp_path: Path, file: Path) -> None:
    file.write_text(file.read_text() + '{"prompt": "hm"}\n')
    done = plan(tmp_path / "home", str(file), "--base", BASE)
    assert done.returncode == 1
    assert "line 41" in done.stderr
    done = plan(tmp_path / "home", str(file.parent / "nowhere.jsonl"), "--base", BASE)
    assert "there is no such file" in done.stderr
    done = plan(tmp_path / "home", str(file), "--base", BASE, "--set", "batchSize")
    assert "expected name=value" in done.stderr
