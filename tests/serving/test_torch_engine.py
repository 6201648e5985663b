"""The engine's batch answers as each request by itself, with every adapter on its own rows."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from outcrop.serving.engines.torch_engine import Active, TorchEngine, sample
from outcrop.serving.protocol import Generate
from outcrop.training.lora import save_adapters
from outcrop.training.model import Trainee
from outcrop.training.plan import Settings
from tests.models import make_gpt2, make_llama


class Sink:
    is_gone = False

    def send(self, reply: Any) -> None: ...


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return make_llama(folder) if request.param == "llama" else make_gpt2(folder)


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folders = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"adapter{seed}")
        made = Trainee(base, Settings(lora_rank=4, lora_alpha=8.0, seed=seed), 256).adapters
        for adapter in made.values():
            torch.manual_seed(seed)
            adapter.B_Or.data.normal_(0, 0.3)
        save_adapters(made, folder, "base")
        folders.append(str(folder))
    return folders


PROMPTS = [[5, 6, 7, 8, 9], [40], [11, 12, 13] * 10, [70, 71, 72]]


def request(prompt: list[int], adapter: str | None = None, most: int = 12) -> Generate:
    return Generate(tokens=prompt, max_tokens=most, stop_tokens=[], adapter=adapter)


@torch.inference_mode()
def together(engine: TorchEngine, requests: list[Generate], late: int = 0) -> list[list[int]]:
    """Greedy answers; the last `late` requests come in while the others are being answered."""
    every = [Active(one, Sink(), None) for one in requests]
    answers: dict[int, list[int]] = {id(one): [] for one in every}
    waiting = every[len(every) - late :] if late else []

    def hand_out(requests: list[Active]) -> None:
        for one in requests:
            answers[id(one)].append(one.next_token)
            if len(answers[id(one)]) == one.request.max_tokens:
                engine.drop(one)

    newcomers = every[: len(every) - late]
    while newcomers or engine.active:
        if newcomers:
            engine.admit(newcomers)
            hand_out(newcomers)
        if engine.active:
            engine.decode()
            hand_out(list(engine.active))
        newcomers = [waiting.pop(0)] if waiting else []
    return [answers[id(one)] for one in every]


def engine_with(base: Path, adapters: list[str]) -> TorchEngine:
    engine = TorchEngine(base, 8)
    for adapter in adapters:
        engine.load_adapter(adapter)
    return engine


def test_greedy_answers_are_those_of_transformers(base: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    answers = together(TorchEngine(base, 8), [request(prompt) for prompt in PROMPTS])
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([prompt])
        expected = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, min_new_tokens=12, do_sample=False, pad_token_id=0
        )  # fmt: skip
        assert answer == expected[0, len(prompt) :].tolist()


def test_a_batch_of_several_adapters_answers_as_each_alone(base: Path, adapters: list[str]) -> None:
    engine = engine_with(base, adapters)
    requests = [
        request(prompt, adapter) for prompt, adapter in zip(PROMPTS, [None, *adapters, adapters[0]], strict=True)
    ]
    alone = [together(engine, [one])[0] for one in requests]
    assert together(engine, requests) == alone
    assert together(engine, requests, late=2) == alone
    assert len({tuple(together(engine, [request(PROMPTS[0], one)])[0]) for one in (None, *adapters)}) == 3


def test_answers_of_different_lengths_leave_the_batch_without_harm(base: Path) -> None:
    engine = TorchEngine(base, 8)
    requests = [request(prompt, most=most) for prompt, most in zip(PROMPTS, (2, 9, 30, 5), strict=True)]
    assert together(engine, requests) == [together(engine, [one])[0] for one in requests]


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    other = make_llama(tmp_path / "other", layers=4)
    made = Trainee(other, Settings(lora_rank=2), 256).adapters
    (tmp_path / "adapter").mkdir()
    save_adapters(made, tmp_path / "adapter", "other")
    with pytest.raises(ValueError, match="does not fit this base"):
        TorchEngine(base, 2).load_adapter(str(tmp_path / "adapter"))


def test_a_seed_draws_the_same_tokens_and_top_p_keeps_to_the_likeliest() -> None:
    logits = torch.tensor([3.0, 2.0, 1.0, -5.0])
    asked = Generate(tokens=[1], max_tokens=1, stop_tokens=[], temperature=1.0, top_p=0.6)
    draws = [sample(logits, asked, torch.Generator().manual_seed(seed)) for seed in range(50)]
    assert draws == [sample(logits, asked, torch.Generator().manual_seed(seed)) for seed in range(50)]
    assert set(draws) == {0}
    wide = Generate(tokens=[1], max_tokens=1, stop_tokens=[], temperature=1.0, top_p=0.95)
    assert {sample(logits, wide, torch.Generator().manual_seed(seed)) for seed in range(200)} == {0, 1, 2}
    few = Generate(tokens=[1], max_tokens=1, stop_tokens=[], temperature=1.0, top_k=2)
    assert {sample(logits, few, torch.Generator().manual_seed(seed)) for seed in range(200)} == {0, 1}


def test_an_adapter_with_other_sizes_or_kinds_is_refused(base: Path, adapters: list[str], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    engine = TorchEngine(base, 2)
    for name in ("sizes", "dora"):
        (tmp_path / name).mkdir()
        config = json.loads((Path(adapters[0]) / "adapter_config.json").read_text())
        tensors = load_file(Path(adapters[0]) / "adapter_model.safetensors")
        if name == "sizes":
            tensors = {key: value[:, :-1].contiguous() if "lora_A" in key else value for key, value in tensors.items()}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({**config, "use_dora": name == "dora"}))
        save_file(tensors, tmp_path / name / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="has other sizes"):
        engine.load_adapter(str(tmp_path / "sizes"))
    with pytest.raises(ValueError, match="use_dora is not supported"):
        engine.load_adapter(str(tmp_path / "dora"))
