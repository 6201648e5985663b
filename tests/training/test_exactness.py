"""What makes training fast changes nothing about its result."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from outcrop.datasets import Rows
from outcrop.errors import Diverged, Invalid
from outcrop.rendering import Conversation, Renderer
from outcrop.training.batches import cut, lay_out, order_of
from outcrop.training.loop import make_optimizer, prepare, rate_at, run
from outcrop.training.lora import add_adapters, load_adapters, save_adapters
from outcrop.training.model import answer_loss, load_base
from outcrop.training.plan import Plan, Result, Settings
from outcrop.training.step import evaluate, step
from tests.models import make_gpt2, make_llama

TALKS = [
    Conversation.of("the cat", "sat on the mat"),
    Conversation.of("a", "b", "the dog ran to the red house and the cat sat", "yes", system="be brief"),
    Conversation.of("the red house " * 8, "the dog"),
    Conversation.of("x", "y"),
    Conversation.of("the mat and the house", "ran"),
]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return make_llama(folder) if request.param == "llama" else make_gpt2(folder)


@pytest.fixture(scope="module")
def rows(base: Path) -> Rows:
    renderer = Renderer(base)
    return Rows.of(renderer.training_row(talk) for talk in TALKS)


def plain_loss(model: torch.nn.Module, rows: Rows) -> torch.Tensor:
    """One row at a time through transformers' own attention, logits everywhere."""
    total = torch.zeros(())
    for tokens, is_answer in rows:
        ids = torch.tensor(tokens, dtype=torch.int64)[None]
        logits = model(ids).logits[0, :-1]
        learned = torch.tensor(is_answer[1:])
        total = total + cross_entropy(logits[learned], ids[0, 1:][learned], reduction="sum")
    return total


def test_packed_rows_have_the_loss_and_gradients_of_each_row_by_itself(base: Path, rows: Rows) -> None:
    packed, plain = load_base(base).requires_grad_(True), AutoModelForCausalLM.from_pretrained(base)
    loss = sum((answer_loss(packed, batch) for batch in cut(rows, range(len(rows)), 4096)), torch.zeros(()))
    loss.backward()
    reference = plain_loss(plain, rows)
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    for (name, one), other in zip(packed.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-5), name


def test_how_a_batch_is_cut_does_not_change_the_step(base: Path, rows: Rows) -> None:
    results = []
    for most_tokens in (1, 60, 4096):
        model, _ = prepare(base, Settings(method="full"))
        optimizer = make_optimizer(model, Settings(method="full"))
        batches = list(cut(rows, range(len(rows)), most_tokens))
        results.append((len(batches), step(model, optimizer, batches, 1.0)))
    counts, steps = zip(*results, strict=True)
    assert counts[0] == len(rows)
    assert counts[-1] == 1
    for other in steps[1:]:
        assert other.loss == pytest.approx(steps[0].loss, rel=1e-6)
        assert other.gradient_norm == pytest.approx(steps[0].gradient_norm, rel=1e-5)
        assert other.answer_tokens == steps[0].answer_tokens


def test_rows_do_not_see_each_other(base: Path, rows: Rows) -> None:
    model = load_base(base)
    alone = [answer_loss(model, next(cut(rows, [index], 4096))).item() for index in range(len(rows))]
    assert evaluate(model, rows, 4096) == pytest.approx(sum(alone) / int(rows.is_answer.sum()), rel=1e-5)


def test_every_token_has_its_place_in_the_grids() -> None:
    lengths = [3, 3, 4, 9, 30]
    places = 0
    for grid in lay_out(lengths):
        assert grid.grid_RL.numel() <= len(grid.place_t) / 0.8 + 1
        flat = grid.grid_RL.flatten()[grid.place_t]
        assert flat.tolist() == list(range(places, places + len(flat)))
        places += len(flat)
    assert places == sum(lengths)


def test_an_adapter_begins_as_the_base_and_is_read_by_peft(base: Path, rows: Rows, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    plain = load_base(base)
    before = evaluate(plain, rows, 4096)
    model, adapters = prepare(base, Settings(lora_rank=4, lora_alpha=8.0))
    assert evaluate(model, rows, 4096) == pytest.approx(before, rel=1e-6)
    optimizer = make_optimizer(model, Settings(learning_rate=1e-2))
    for _ in range(3):
        step(model, optimizer, list(cut(rows, range(len(rows)), 4096)), 1.0)
    after = evaluate(model, rows, 4096)
    assert after < before
    save_adapters(adapters, tmp_path, "the-base")

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
    model = load_base(base)
    adapters = add_adapters(model, 4, 8.0, 0.0, seed=1)
    load_adapters(adapters, tmp_path)
    with torch.no_grad():
        expected = plain_loss(theirs.eval(), rows).item() / int(rows.is_answer.sum())
    assert evaluate(model, rows, 4096) == pytest.approx(expected, rel=1e-4)


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    other = make_llama(tmp_path / "other", layers=3)
    _, adapters = prepare(other, Settings(lora_rank=4))
    (tmp_path / "adapter").mkdir()
    save_adapters(adapters, tmp_path / "adapter", "other")
    _, ours = prepare(base, Settings(lora_rank=4))
    with pytest.raises(Invalid, match="does not fit the base model"):
        load_adapters(ours, tmp_path / "adapter")


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
    model, adapters = prepare(base, Settings(lora_rank=4))
    load_adapters(adapters, tmp_path / "run" / str(result.checkpoint))
    assert evaluate(model, rows, 4096) == pytest.approx(result.validation_losses[0], rel=1e-4)
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


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
    model, _ = prepare(base, Settings(method="full"))
    next(iter(model.parameters())).data.fill_(float("nan"))
    optimizer = make_optimizer(model, Settings(method="full"))
    with pytest.raises(Diverged, match="try a lower learningRate"):
        step(model, optimizer, list(cut(rows, [0], 4096)), 1.0)


def test_the_rate_rises_and_falls_in_straight_lines() -> None:
    settings = Settings(learning_rate=1.0, warmup_steps=4)
    rates = [rate_at(done, 20, settings) for done in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[-1] == pytest.approx(1 / 16)
    plateau = Settings(learning_rate=1.0, warmup_steps=0, decay_share=0.25)
    assert [rate_at(done, 20, plateau) for done in (0, 14)] == [1.0, 1.0]


def test_the_order_of_rows_can_be_found_again() -> None:
    assert order_of(3, 50, seed=1, shuffles=True) == order_of(3, 50, seed=1, shuffles=True)
    assert sorted(order_of(3, 50, seed=1, shuffles=True)) == list(range(50))
    assert order_of(3, 50, seed=1, shuffles=True) != order_of(4, 50, seed=1, shuffles=True)


def test_the_child_process_leaves_a_reason_when_the_base_is_broken(rows: Rows, tmp_path: Path) -> None:
    from outcrop.training.__main__ import main

    folder = plan_for(tmp_path / "nowhere", rows, tmp_path / "run")
    assert main(folder) == 1
    result = Result.read(folder)
    assert result is not None
    assert result.status == "failed"
    assert "does not load as a causal language model" in result.reason
