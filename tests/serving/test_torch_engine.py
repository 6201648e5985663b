"""The engine's batch answers as each request by itself, with every adapter on its own rows."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from outcrop.serving.engines.batch import Part
from outcrop.serving.engines.sampling import sample
from outcrop.serving.engines.torch_engine import TorchEngine
from outcrop.serving.protocol import Generate, Score
from outcrop.training.lora import save_adapters
from outcrop.training.model import Trainee
from outcrop.training.plan import Settings
from tests.models import make_gpt2, make_llama


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return make_llama(folder) if request.param == "llama" else make_gpt2(folder)


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return adapters_of(base, tmp_path_factory)


def adapters_of(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
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


def together(engine: TorchEngine, requests: list[Generate], late: int = 0) -> list[list[int]]:
    """Greedy answers; the last `late` requests come in while the others are being answered."""
    waiting = list(requests)
    answers: dict[int, list[int]] = {}
    allowed = len(requests) - late
    while waiting or engine.active:
        while waiting and len(requests) - len(waiting) < allowed and (one := engine.admit(waiting[0])):
            answers[id(waiting.pop(0))] = one.answer
        for one in engine.turn():
            if len(one.answer) == one.request.max_tokens:
                engine.drop(one)
        allowed += 1
    return [answers[id(one)] for one in requests]


def engine_with(base: Path, adapters: list[str]) -> TorchEngine:
    engine = TorchEngine(base, 8)
    for adapter in adapters:
        engine.adapters.load(adapter)
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
        TorchEngine(base, 2).adapters.load(str(tmp_path / "adapter"))


def test_a_seed_draws_the_same_tokens_and_top_p_keeps_to_the_likeliest() -> None:
    logits = np.array([3.0, 2.0, 1.0, -5.0], np.float32)
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
        engine.adapters.load(str(tmp_path / "sizes"))
    with pytest.raises(ValueError, match="use_dora is not supported"):
        engine.adapters.load(str(tmp_path / "dora"))


LONG = [(7 * place) % 90 + 5 for place in range(700)]


def test_prompts_that_begin_alike_are_read_once_and_answered_the_same(base: Path, adapters: list[str]) -> None:
    asked = [request([*LONG[:200], *prompt], adapters[0]) for prompt in PROMPTS]
    plain = engine_with(base, adapters)
    plain.reuses = False
    expected = together(plain, asked)
    sharing = engine_with(base, adapters)
    read = counted(sharing)
    assert together(sharing, asked) == expected
    assert sum(read) < 200 + 4 * 60, "the beginning was read more than once"
    read.clear()
    assert together(sharing, asked) == expected
    assert sum(read) < 4 * 60, "what was read before is still there"


def counted(engine: TorchEngine) -> list[int]:
    """The rows of each pass that read a prompt, as passes go on."""
    rows: list[int] = []
    compute = engine.compute

    def counting(parts: list[Part]) -> np.ndarray:
        rows.extend(part.count for part in parts if part.count > 1)
        return compute(parts)

    engine.compute = counting  # type: ignore[method-assign]
    return rows


def test_a_long_prompt_is_read_in_pieces_between_which_others_go_on(base: Path) -> None:
    if "gpt2" in base.name:
        pytest.skip("its context is shorter")
    engine = TorchEngine(base, 4)
    engine._prompt_rate = 4 * 64.0  # as if this machine were slow
    alone = together(engine, [request(LONG, most=4)])
    engine.pages.forget()
    short = engine.admit(request([5, 6], most=100))
    assert short is not None
    engine.turn()
    engine._prompt_rate = 4 * 64.0
    long = engine.admit(request(LONG, most=4))
    assert long is not None
    turns = 0
    while long.is_reading:
        assert short in engine.turn(), "the other request was held up"
        engine._prompt_rate = 4 * 64.0
        turns += 1
    assert turns == 12  # 700 tokens at 63 a turn
    while len(long.answer) < 4:
        engine.turn()
    assert [long.answer] == alone


def test_adapters_make_room_for_others_the_longest_unused_first(base: Path, adapters: list[str]) -> None:
    engine = TorchEngine(base, 4, adapter_bytes=1)  # the least there is: 8 rows, two adapters of rank 4
    third = (
        f"{Path(adapters[0]).parent}/../{Path(adapters[0]).parent.name}/{Path(adapters[0]).name}"  # another name of one
    )
    expected = together(engine_with(base, adapters), [request(PROMPTS[0], adapters[0])])
    for adapter in adapters:
        assert engine.adapters.load(adapter)
    one, other = (engine.admit(request(PROMPTS[0], adapter)) for adapter in adapters)
    assert one is not None
    assert other is not None
    assert engine.admit(request(PROMPTS[0], third)) is None, "both are in use"
    engine.drop(one)
    again = engine.admit(request(PROMPTS[0], third))
    assert again is not None
    assert adapters[0] not in engine.adapters
    while len(again.answer) < 12:
        engine.turn()
    assert [again.answer] == expected


def test_what_is_provisioned_keeps_its_rate_while_others_wait(base: Path) -> None:
    engine = TorchEngine(base, 4)
    engine.promise = 1e9  # always behind
    flood = [engine.admit(request(prompt, most=50)) for prompt in PROMPTS[:3]]
    paying = engine.admit(msgspec.structs.replace(request(PROMPTS[3], most=50), provisioned=True))
    assert paying is not None
    for _ in range(5):
        assert engine.turn() == [paying]
    engine.promise = paying.promised = 1e-9  # never behind
    assert len(engine.turn()) == 4
    assert all(one is not None and len(one.answer) == 1 for one in flood)


def test_int8_answers_the_same_alone_and_among_others(base: Path, adapters: list[str]) -> None:
    engine = TorchEngine(base, 8, "int8")
    exact = TorchEngine(base, 8)
    for adapter in adapters:
        engine.adapters.load(adapter)
    requests = [
        request(prompt, adapter) for prompt, adapter in zip(PROMPTS, [None, *adapters, adapters[0]], strict=True)
    ]
    if "gpt2" not in base.name:  # there float32's last bits, by which PyTorch's norms differ, decide a rounding
        assert together(engine, requests) == [together(engine, [one])[0] for one in requests]
    score = Score(LONG[:200], list(range(1, 200)))
    assert engine.score(score) == pytest.approx(exact.score(score), rel=0.01)
    assert engine.score(score) != exact.score(score)


def test_log_probabilities_are_those_of_the_model(base: Path) -> None:
    engine = TorchEngine(base, 2)
    one = engine.admit(msgspec.structs.replace(request(PROMPTS[0], most=3), logprobs=4))
    assert one is not None
    engine.turn()
    assert one.said.token is not None
    assert one.said.logprob is not None
    cost = engine.score(Score([*PROMPTS[0], one.said.token], [len(PROMPTS[0])]))
    assert one.said.logprob == pytest.approx(-cost, abs=1e-5)
    assert one.said.top[0] == (one.said.token, pytest.approx(one.said.logprob))
    assert len(one.said.top) == 4
