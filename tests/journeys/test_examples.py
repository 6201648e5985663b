"""Every example runs as it stands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Outcrop

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs(outcrop: Outcrop, path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path)], env=outcrop.environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.slow
def test_the_demo_compares_base_and_tuned(tmp_path: Path) -> None:
    page = tmp_path / "demo.html"
    done = subprocess.run(
        [sys.executable, "-m", "outcrop", "demo", "--page", str(page), "--rows", "20"],
        env={**os.environ, "COLUMNS": "140"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for measure in ("exact match", "contains the answer", "valid by the schema", "output tokens"):
        assert measure in done.stdout
    html = page.read_text(encoding="utf-8")
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html
    assert "<svg" in html
