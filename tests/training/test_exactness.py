"""What makes training fast changes nothing about its result."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import AutoModelForCausalLM

from outcrop import arithmetic
from outcrop.arithmetic import MKL, ONEDNN
from outcrop.datasets import Rows
from outcrop.errors import Diverged, Invalid
from outcrop.rendering import Conversation, Renderer
from outcrop.training.attention import TreeAttention
from outcrop.training.batches import Microbatch, cut
from outcrop.training.decoder import Decoder
from outcrop.training.loop import rate_at, run
from outcrop.training.lora import load_adapters, save_adapters
from outcrop.training.model import Autograd, Trainee
from outcrop.training.plan import Plan, Result, Settings
from outcrop.training.prefixes import Forest, neighbours
from outcrop.training.step import evaluate, step
from tests.models import make_gpt2, make_llama

TALKS = [
    Conversation.of("the cat", "sat on the mat"),
    Conversation.of("a", "b", "the dog ran to the red house and the cat sat", "yes", system="be brief"),
    Conversation.of("the red house " * 8, "the dog"),
    Conversation.of("x", "y"),
    Conversation.of("the mat and the house", "ran"),
]
SIZES = {
    "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.1,
}  # fmt: skip
# A config of transformers, what it needs besides, and which of the two ways computes it.
FAMILIES = {
    "llama": (transformers.LlamaConfig, {}, Decoder),
    "llama with biases, tied": (
        transformers.LlamaConfig, {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}, Decoder,
    ),
    "mistral": (transformers.MistralConfig, {"sliding_window": None}, Decoder),
    "mistral, rows beyond its window": (transformers.MistralConfig, {"sliding_window": 64}, Autograd),
    "qwen2": (transformers.Qwen2Config, {}, Decoder),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 16}, Decoder),
    "gemma": (transformers.GemmaConfig, {"head_dim": 16}, Autograd),
    "gemma2": (transformers.Gemma2Config, {"head_dim": 16, "sliding_window": 64}, Autograd),
    "gemma3": (transformers.Gemma3TextConfig, {"head_dim": 16, "sliding_window": 64}, Autograd),
    "phi": (transformers.PhiConfig, {}, Autograd),
    "phi3": (transformers.Phi3Config, {"pad_token_id": 0}, Autograd),
    "olmo2": (transformers.Olmo2Config, {"eos_token_id": 1}, Autograd),
    "stablelm": (transformers.StableLmConfig, {}, Autograd),
}  # fmt: skip


def trees(seed: int = 0, document: int = 100) -> Rows:
    """Three documents of so many tokens under one system prompt with four questions each, a row twice, one that ends inside the prompt, and
    one whose prefix is learned (a second answer in the middle)."""
    draw = np.random.default_rng(seed)

    def words(number: int) -> list[int]:
        return [int(token) for token in draw.integers(3, 99, number)]

    made: list[tuple[list[int], list[bool]]] = []
    prompt = words(50)
    for _ in range(3):
        shared = prompt + words(document)
        made += [(shared + words(9), [False] * (len(shared) + 5) + [True] * 4) for _ in range(4)]
    made += [made[0], (prompt, [False] * 20 + [True] * 30), (prompt + words(70), [False] * 20 + [True] * 100)]
    starts = np.cumsum([0, *(len(tokens) for tokens, _ in made)])
    return Rows(
        np.concatenate([np.array(tokens, np.int32) for tokens, _ in made]),
        np.concatenate([np.array(mask) for _, mask in made]), starts,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return make_llama(folder) if request.param == "llama" else make_gpt2(folder)


@pytest.fixture(scope="module")
def rows(base: Path) -> Rows:
    renderer = Renderer(base)
    return Rows.of(renderer.training_row(talk) for talk in TALKS)


def trainee_of(base: Path, **settings: object) -> Trainee:
    """A model with adapters that already do something."""
    trainee = Trainee(base, Settings(lora_rank=4, lora_alpha=8.0, **settings), 256)
    generator = torch.Generator().manual_seed(3)
    for adapter in trainee.adapters.values():
        adapter.B_Or.data.normal_(std=0.05, generator=generator)
    trainee.learner.refresh()
    return trainee


def plain_loss(model: torch.nn.Module, rows: Rows) -> torch.Tensor:
    """One row at a time through transformers' own attention, logits everywhere."""
    total = torch.zeros(())
    for tokens, is_answer in rows:
        ids = torch.tensor(tokens, dtype=torch.int64)[None]
        logits = model(ids).logits[0, :-1]
        learned = torch.tensor(is_answer[1:])
        total = total + cross_entropy(logits[learned], ids[0, 1:][learned], reduction="sum")
    return total


def learned(trainee: Trainee, batches: list[Microbatch]) -> tuple[float, torch.Tensor]:
    """Loss and gradient of microbatches."""
    trainee.flat.zero_grad()
    loss = sum(trainee.learner.learn(batch, 1.0) for batch in batches)
    return loss, torch.cat(trainee.flat.gradients())


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other.detach()).norm() / other.detach().norm())


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_trees_have_the_loss_and_gradients_of_each_row_by_itself(
    family: str, method: str, library: str, tmp_path: Path
) -> None:
    make, more, way = FAMILIES[family]
    if way is Autograd and library == ONEDNN:
        pytest.skip("autograd's products come in every shape and stay with MKL")
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(make(**SIZES, **more))
    for name, weight in model.named_parameters():
        if "bias" in name or "norm" in name:
            weight.data += 0.1 * torch.randn_like(weight)
    model.save_pretrained(tmp_path)
    rows = trees(document=300 if library == ONEDNN else 100)  # enough for whole tiles

    trainee = trainee_of(tmp_path, method=method)
    assert isinstance(trainee.learner, way)
    shared = list(cut(rows, range(len(rows)), 4096))
    assert sum(batch.attention.num_tokens for batch in shared) < 0.4 * len(rows.tokens)
    tree = learned(trainee, shared)
    packed = learned(trainee, list(cut(rows, range(len(rows)), 4096, shares=False)))
    assert trainee.learner.loss(shared[0]) == pytest.approx(tree[0], rel=1e-6)
    trainee.learner.checkpoint_activations()
    checkpointed = learned(trainee, shared)

    reference = trainee_of(tmp_path, method=method)
    arithmetic.use(MKL)
    reference.model.set_attn_implementation("eager")
    reference.flat.zero_grad()
    expected = plain_loss(reference.model, rows)
    expected.backward()
    gradient = torch.cat(reference.flat.gradients())
    for loss, found in (tree, packed, checkpointed):
        assert loss == pytest.approx(expected.item(), rel=1e-5)
        assert difference(found, gradient) < 1e-5


def test_attention_with_sinks_is_refused_in_words(tmp_path: Path) -> None:
    sizes = {**SIZES, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "pad_token_id": 0}
    AutoModelForCausalLM.from_config(transformers.GptOssConfig(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(Invalid, match=r"sinks \(GPT-OSS\), which are not trained here"):
        trainee_of(tmp_path).learner.loss(Microbatch.of(trees(), [0]))


def test_a_forest_holds_every_row_and_learns_what_the_rows_learn() -> None:
    rows = trees()
    forest = Forest.of(rows, range(len(rows)))
    assert forest.counts.sum() == sum(is_answer[1:].sum() for _, is_answer in rows)
    depths = {node.position for node in forest.nodes}
    assert len(depths) >= 3, "system prompt, document and question are levels of their own"
    mask = TreeAttention(forest.nodes, len(forest.tokens)).mask()
    for tokens, _ in rows:  # some place sees exactly this row
        ways = [forest.tokens[mask[place].numpy()] for place in range(len(forest.tokens))]
        assert any(np.array_equal(way, tokens[:-1]) for way in ways)


def test_neighbours_never_share_a_last_token() -> None:
    same = np.array([5, 6, 7], np.int32)
    rows = Rows(np.concatenate([same, same]), np.ones(6, bool), np.array([0, 3, 6]))
    assert neighbours(rows, [0, 1]).tolist() == [0, 2]


@pytest.mark.parametrize("seed", range(3))
def test_attention_in_blocks_is_attention_under_the_mask(seed: int, library: str) -> None:
    rows = trees(seed, document=(100, 300, 520)[seed])
    for shares in (True, False):
        forest = Forest.of(rows, range(len(rows)), shares)
        layout = TreeAttention(forest.nodes, len(forest.tokens))
        draw = torch.Generator().manual_seed(seed)
        query, key, value, grad = (torch.randn(len(forest.tokens), heads, 16, generator=draw) for heads in (4, 2, 2, 4))
        used = sorted(set(forest.sources.tolist()))
        only_used = torch.zeros_like(grad)
        only_used[used] = grad[used]
        for attention, asked in ((layout, grad), (layout.from_first_use(used), only_used)):
            mixed, sums = attention.forward(query, key, value, 0.25)
            grads = tuple(torch.zeros_like(part) for part in (query, key, value))
            attention.backward(asked, query, key, value, mixed, sums, 0.25, grads)
            parts = [part.clone().requires_grad_() for part in (query, key, value)]
            expected = scaled_dot_product_attention(
                *(part.transpose(0, 1)[None] for part in parts), attn_mask=layout.mask(), scale=0.25, enable_gqa=True
            )[0].transpose(0, 1)
            assert difference(mixed[used], expected[used]) < 1e-6
            for found, wanted in zip(grads, torch.autograd.grad(expected, parts, asked), strict=True):
                assert difference(found, wanted) < 2e-6


@pytest.mark.pain(6)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_how_a_batch_is_cut_does_not_change_the_step(base: Path, method: str) -> None:
    """Eight microbatches of one row are one of eight."""
    rows = trees()
    results = []
    for most_tokens in (1, 300, 4096):
        trainee = trainee_of(base, method=method)
        batches = list(cut(rows, range(8), most_tokens))
        found = step(trainee, trainee.flat.optimizer(1e-3, 0.95), batches, 1.0)
        results.append((len(batches), found, torch.cat(trainee.flat.gradients())))
    assert next(count for count, _, _ in results) == 8
    assert [count for count, _, _ in results][-1] == 1
    for _, other, gradient in results[1:]:
        assert other.loss == pytest.approx(results[0][1].loss, rel=1e-6)
        assert difference(gradient, results[0][2]) < 5e-6
        assert other.answer_tokens == results[0][1].answer_tokens


@pytest.mark.pain(7)
def test_rows_do_not_see_each_other(base: Path, rows: Rows) -> None:
    """Pain 7."""
    trainee = trainee_of(base)
    alone = [trainee.learner.loss(Microbatch.of(rows, [index])) for index in range(len(rows))]
    assert evaluate(trainee, rows, 4096) == pytest.approx(sum(alone) / int(rows.is_answer.sum()), rel=1e-5)


def test_an_adapter_begins_as_the_base_and_is_read_by_peft(base: Path, rows: Rows, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    before = evaluate(Trainee(base, Settings(method="full"), 256), rows, 4096)
    trainee = Trainee(base, Settings(lora_rank=4, lora_alpha=8.0), 256)
    assert evaluate(trainee, rows, 4096) == pytest.approx(before, rel=1e-6)
    optimizer = trainee.flat.optimizer(1e-2, 0.95)
    for _ in range(3):
        step(trainee, optimizer, list(cut(rows, range(len(rows)), 4096)), 1.0)
    after = evaluate(trainee, rows, 4096)
    assert after < before
    save_adapters(trainee.adapters, tmp_path, "the-base")

    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path)
    with torch.no_grad():
        loss = plain_loss(theirs, rows).item() / int(rows.is_answer.sum())
    assert loss == pytest.approx(after, rel=1e-4)


def test_an_adapter_written_by_peft_is_read_by_us(base: Path, rows: Rows, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    names = ["c_attn", "c_proj", "c_fc"] if "gpt2" in base.name else "all-linear"
    theirs = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=names, init_lora_weights=False, task_type="CAUSAL_LM",
                        fan_in_fan_out="gpt2" in base.name),
    )  # fmt: skip
    theirs.save_pretrained(tmp_path)
    trainee = trainee_of(base)
    load_adapters(trainee.adapters, tmp_path)
    trainee.learner.refresh()
    with torch.no_grad():
        expected = plain_loss(theirs.eval(), rows).item() / int(rows.is_answer.sum())
    assert evaluate(trainee, rows, 4096) == pytest.approx(expected, rel=1e-4)


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    other = make_llama(tmp_path / "other", layers=3)
    (tmp_path / "adapter").mkdir()
    save_adapters(trainee_of(other).adapters, tmp_path / "adapter", "other")
    with pytest.raises(Invalid, match="does not fit the base model"):
        load_adapters(trainee_of(base).adapters, tmp_path / "adapter")


def plan_for(base: Path, rows: Rows, folder: Path, **settings: object) -> Path:
    folder.mkdir()
    rows.write(folder / "train.rows")
    rows.write(folder / "validation.rows")
    said = {"epochs": 6, "batch_rows": 2, "learning_rate": 2e-2, "lora_rank": 4, **settings}
    Plan(base=str(base), validation_rows=["validation.rows"], settings=Settings(**said), threads=1).write(folder)
    return folder


def test_a_run_keeps_its_best_checkpoint(base: Path, rows: Rows, tmp_path: Path) -> None:
    result = run(plan_for(base, rows, tmp_path / "run"), lambda: False)
    assert result.status == "completed"
    trainee = Trainee(base, Settings(lora_rank=4), 256)
    load_adapters(trainee.adapters, tmp_path / "run" / str(result.checkpoint))
    trainee.learner.refresh()
    assert evaluate(trainee, rows, 4096) == pytest.approx(result.validation_losses[0], rel=1e-4)
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) > 1, "every evaluation's adapters can be deployed"


def test_training_that_does_not_get_better_stops_early(base: Path, rows: Rows, tmp_path: Path) -> None:
    folder = plan_for(base, rows, tmp_path / "run", learning_rate=1e-7, epochs=10, early_stopping_threshold=0.1)
    result = run(folder, lambda: False)
    assert result.stopped_early
    assert result.step < result.steps


def test_a_stopped_run_keeps_a_checkpoint(base: Path, rows: Rows, tmp_path: Path) -> None:
    calls = iter([False, True])
    result = run(plan_for(base, rows, tmp_path / "run"), lambda: next(calls))
    assert (result.status, result.step) == ("stopped", 2)
    assert (tmp_path / "run" / str(result.checkpoint)).is_dir()


def test_the_same_seed_gives_the_same_weights(base: Path, rows: Rows, tmp_path: Path) -> None:
    weights = []
    for name in ("one", "two"):
        result = run(plan_for(base, rows, tmp_path / name, seed=7, lora_dropout=0.2, epochs=2), lambda: False)
        weights.append(load_file(tmp_path / name / str(result.checkpoint) / "adapter_model.safetensors"))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_full_training_writes_a_model_that_transformers_loads(base: Path, rows: Rows, tmp_path: Path) -> None:
    result = run(plan_for(base, rows, tmp_path / "run", method="full", learning_rate=1e-3, epochs=2), lambda: False)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / str(result.checkpoint))
    with torch.no_grad():
        loss = plain_loss(model, rows).item() / int(rows.is_answer.sum())
    assert loss == pytest.approx(result.validation_losses[0], rel=1e-4)


def test_a_loss_that_is_not_finite_ends_the_run_in_words(base: Path, rows: Rows, tmp_path: Path) -> None:
    trainee = trainee_of(base, method="full")
    trainee.flat.groups[0][0].data.fill_(float("nan"))
    with pytest.raises(Diverged, match="try a lower learningRate"):
        step(trainee, trainee.flat.optimizer(1e-3, 0.95), list(cut(rows, [0], 4096)), 1.0)


def test_the_rate_rises_and_falls_in_straight_lines() -> None:
    settings = Settings(learning_rate=1.0, warmup_steps=4)
    rates = [rate_at(done, 20, settings) for done in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[-1] == pytest.approx(1 / 16)
    plateau = Settings(learning_rate=1.0, warmup_steps=0, decay_share=0.25)
    assert [rate_at(done, 20, plateau) for done in (0, 14)] == [1.0, 1.0]


def test_the_child_process_leaves_a_reason_when_the_base_is_broken(rows: Rows, tmp_path: Path) -> None:
    from outcrop.training.__main__ import main

    folder = plan_for(tmp_path / "nowhere", rows, tmp_path / "run")
    assert main(folder) == 1
    result = Result.read(folder)
    assert result is not None
    assert result.status == "failed"
    assert "does not load as a causal language model" in result.reason
