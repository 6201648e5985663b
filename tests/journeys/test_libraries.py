"""The libraries that people speak to Bedrock with, unmodified: each program of examples/clients, in an environment of its own.

`make test` makes that environment (.venv-clients); where it could not be made, these tests are skipped.
"""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Outcrop

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-clients/bin/python"
PROGRAMS = sorted((ROOT / "examples/clients").glob("*.py"))
ALIAS = "anthropic.claude-3-haiku-20240307-v1:0"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON.exists(), reason="there is no .venv-clients; `make .venv-clients/installed` makes it"
    ),
]


@pytest.fixture(scope="module")
def environment(outcrop: Outcrop) -> dict[str, str]:
    subprocess.run(
        ["outcrop", "models", "alias", ALIAS, "outcrop.pebble-v1:0"], env=outcrop.environment, check=True, capture_output=True
    )  # fmt: skip
    return {
        **outcrop.environment, "AWS_BEDROCK_RUNTIME_ENDPOINT": outcrop.endpoint, "ANTHROPIC_BEDROCK_BASE_URL": outcrop.endpoint,
        "OPENAI_BASE_URL": f"{outcrop.endpoint}/v1", "OPENAI_API_KEY": outcrop.keys.bearer,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OTEL_SDK_DISABLED": "true",
    }  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=[program.stem for program in PROGRAMS])
def test_it_chats_and_streams(environment: dict[str, str], outcrop: Outcrop, program: Path) -> None:
    done = subprocess.run(
        [PYTHON, program], env=environment, cwd=program.parent.parent, capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["whole"].strip() == outcrop.ask("outcrop.pebble-v1:0", "My vacuum is broken.").strip()
    assert "".join(said["streamed"]).strip() == said["whole"].strip()
    assert sum(1 for piece in said["streamed"] if piece) > 1, "it did not stream"


def test_every_library_has_a_program() -> None:
    assert len(PROGRAMS) == 8
