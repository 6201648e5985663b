"""A merged model is what base and adapter were, or it is not written."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from outcrop.errors import Invalid
from outcrop.registry import merge as room
from outcrop.registry.merge import TOLERANCE, merge
from outcrop.training.lora import save_adapters
from outcrop.training.model import Trainee
from outcrop.training.plan import Settings
from tests.models import make_gpt2, make_llama


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def tuned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    base = make_llama(folder / "base") if request.param == "llama" else make_gpt2(folder / "base")
    trainee = Trainee(base, Settings(lora_rank=4, lora_alpha=8.0), 256)
    for adapter in trainee.adapters.values():
        adapter.B_Or.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    (folder / "adapter").mkdir()
    save_adapters(trainee.adapters, folder / "adapter", "base")
    return base, folder / "adapter"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_logits_of_the_merged_model_are_those_of_base_and_adapter(
    tuned: tuple[Path, Path], dtype: str, tmp_path: Path
) -> None:
    """Pain 10."""
    peft = pytest.importorskip("peft")
    base, adapter = tuned
    checked = merge(base, adapter, tmp_path / "out", dtype)
    assert checked.difference < TOLERANCE[dtype]
    assert checked.same_choice > 0.9
    probe = torch.arange(40)[None]
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(base)(probe).logits
        ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)(probe).logits
        theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)(probe).logits
    assert float((ours - theirs).abs().max()) < 0.3 * float((plain - theirs).abs().max())
    if dtype == "float32":
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_merge_that_loses_the_tuning_leaves_nothing(
    tuned: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "TOLERANCE", {"float16": 1e-9})
    with pytest.raises(Invalid, match="export in float32"):
        merge(*tuned, tmp_path / "out", "float16")
    assert not (tmp_path / "out").exists()
    with pytest.raises(Invalid, match="one of float32"):
        merge(*tuned, tmp_path / "out", "int4")
