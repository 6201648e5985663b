"""Results as JSON, with what is needed to judge them."""

import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from outcrop.demo.run import machine

RESULTS = Path(__file__).parent / "results"


def write(name: str, figures: dict[str, Any]) -> Path:
    """Write figures with machine, versions and commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    versions = {package: version(package) for package in ("torch", "transformers", "botocore", "granian")}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(
        json.dumps({"machine": machine(), "commit": commit, "versions": versions, **figures}, indent=2) + "\n"
    )
    return path
