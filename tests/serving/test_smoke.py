"""A model that the engine would compute wrongly is not let in."""

from pathlib import Path

import pytest
import torch
import transformers

from outcrop.serving.engines import adapters, smoke, transformed
from outcrop.training.lora import save_adapters
from tests.models import make_llama, make_tokenizer
from tests.training.test_exactness import SIZES, trainee_of

pytestmark = pytest.mark.slow


@pytest.fixture
def gemma(tmp_path: Path) -> Path:
    size = make_tokenizer(tmp_path)
    torch.manual_seed(0)
    config = transformers.Gemma2Config(**{**SIZES, "vocab_size": size, "head_dim": 16, "attn_logit_softcapping": 2.0})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    return tmp_path


def test_a_model_is_measured_and_written_with(gemma: Path) -> None:
    found = smoke.smoke_test(gemma, None)
    assert found["loss"] == pytest.approx(found["uniform_loss"], rel=0.1), "random weights know nothing"
    assert found["sample"]


def test_what_the_engine_leaves_out_of_an_architecture_is_noticed(gemma: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    careful = transformed.Attention
    monkeypatch.setattr(transformed, "Attention", lambda scale, *_: careful(scale))
    assert "does not compute this architecture" in smoke.smoke_test(gemma, None)["reason"]


def test_an_adapter_counts_in_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_llama(tmp_path / "base")
    trainee = trainee_of(base)
    for adapter in trainee.adapters.values():
        adapter.B_Or.data.mul_(10)
    (tmp_path / "adapter").mkdir()
    save_adapters(trainee.adapters, tmp_path / "adapter", "base")
    assert smoke.smoke_test(base, tmp_path / "adapter")["loss"] != smoke.smoke_test(base, None)["loss"]
    monkeypatch.setattr(adapters.Pool, "add", lambda *_: None)
    assert "does not compute" in smoke.smoke_test(base, tmp_path / "adapter")["reason"], "loaded, but not applied"
