"""How a base model is taken up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from outcrop.training.model import load_base
from tests.models import make_llama


def test_the_number_format_is_never_the_configs(tmp_path: Path) -> None:
    """A config that says bfloat16: its arithmetic is ten times slower than float32 on processors without units for it."""
    folder = make_llama(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    assert {weight.dtype for weight in load_base(folder).parameters()} == {torch.float32}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is mapped")
def test_trials_of_a_sweep_share_one_mapped_copy_of_the_base(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=60_000, hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size // 1024
    code = f"""
from pathlib import Path
from outcrop.training.model import load_base
def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return [int(line.split()[1]) for name in ("RssAnon", "RssFile") for line in lines if line.startswith(name)]
before = held()
model = load_base(Path({str(tmp_path)!r}))
total = sum(float(weight.sum()) for weight in model.parameters())
print(*(now - then for now, then in zip(held(), before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own, shared = map(int, done.stdout.split())
    assert shared > 0.95 * size
    assert own < 0.3 * size
