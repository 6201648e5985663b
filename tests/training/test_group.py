"""Several processes come to what one comes to."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
import torch

from outcrop.training.attention import TreeAttention
from outcrop.training.group import Group
from outcrop.training.plan import MEETING, PROGRESS, Plan, Result
from outcrop.training.prefixes import Forest
from tests.models import make_llama
from tests.training.test_exactness import trees
from tests.training.test_resuming import assert_the_same, make_run, metrics, weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("base"))


def start(folder: Path, size: int) -> list["subprocess.Popen[bytes]"]:
    (folder / MEETING).unlink(missing_ok=True)
    command = [sys.executable, "-m", "outcrop.training", str(folder)]
    return [subprocess.Popen([*command, str(rank), str(size)]) for rank in range(size)]


def finish(folder: Path, size: int) -> None:
    assert [child.wait(120) for child in start(folder, size)] == [0] * size


def assert_close(one: Path, other: Path) -> None:
    """Losses within 1e-5, weights within 1e-4 of their norm: Adam makes much of the last bits of small gradients."""
    first, second = weights(one), weights(other)
    for name in first:
        assert float((first[name] - second[name]).norm()) <= 1e-4 * float(first[name].norm()) + 1e-6, name
    for mine, theirs in zip(metrics(one), metrics(other), strict=True):
        if mine["kind"] == "step":
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_learn_what_one_learns(base: Path, tmp_path: Path, method: str) -> None:
    alone, together = (make_run(base, tmp_path / name, method=method, epochs=2) for name in ("alone", "together"))
    finish(alone, 1)
    finish(together, 2)
    assert_close(alone, together)


def test_torchrun_starts_them_too(base: Path, tmp_path: Path) -> None:
    alone, together = (make_run(base, tmp_path / name, epochs=2) for name in ("alone", "together"))
    finish(alone, 1)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "outcrop.training",
         str(together)],
        check=True, timeout=120,
    )  # fmt: skip
    assert_close(alone, together)


def test_two_processes_that_are_killed_go_on_bit_for_bit(base: Path, tmp_path: Path) -> None:
    plain, killed = (
        make_run(base, tmp_path / name, epochs=20, lora_dropout=0.1, early_stopping_patience=100)
        for name in ("plain", "killed")
    )
    finish(plain, 2)
    for step in (5, 30):
        children = start(killed, 2)
        while f'"step":{step},' not in (killed / PROGRESS).read_text() if (killed / PROGRESS).exists() else True:
            assert children[0].poll() is None
            time.sleep(0.005)
        for child in children:
            child.send_signal(signal.SIGKILL)
            child.wait()
    assert Result.read(killed) is None
    finish(killed, 2)
    assert_the_same(plain, killed)


def test_a_job_of_two_processes_ends_as_one(base: Path, tmp_path: Path) -> None:
    from outcrop.workflows.preparation import training_child

    folder = make_run(base, tmp_path / "run", epochs=1)
    plan = msgspec.structs.replace(Plan.read(folder), processes=2)
    with training_child(folder, plan) as child:
        assert child.wait(120) == 0
    assert Result.read(folder).status == "completed"


def test_work_is_shared_by_its_cost() -> None:
    costs = [5.0, 1.0, 1.0, 1.0, 2.0, 0.0]
    shares = [Group(rank, 2).share(costs) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == list(range(len(costs)))
    assert sorted(sum(costs[place] for place in share) for share in shares) == [5.0, 5.0]
    assert Group().share(costs) == list(range(len(costs)))


@pytest.mark.parametrize("window", [None, 40])
def test_flex_attention_is_asked_for_what_the_mask_says(window: int | None) -> None:
    """On a GPU flex attention computes from the same function; that it computes right is tested where there is one."""
    rows = trees()
    forest = Forest.of(rows, range(len(rows)))
    layout = TreeAttention(forest.nodes, len(forest.tokens))
    blocks = layout.block_mask(window, torch.device("cpu")).to_dense()[0, 0].bool()
    mask = layout.mask(window)
    size = -(-len(mask) // 128)
    padded = torch.zeros(size * 128, size * 128, dtype=torch.bool)
    padded[: len(mask), : len(mask)] = mask
    assert torch.equal(blocks, padded.view(size, 128, size, 128).any(3).any(1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_gpu_learns_what_the_processor_learns(base: Path, tmp_path: Path, method: str) -> None:
    """Within bfloat16's rounding: the losses of 24 steps within 2 %."""
    processor, gpu = (make_run(base, tmp_path / name, method=method) for name in ("processor", "gpu"))
    msgspec.structs.replace(Plan.read(gpu), device="cuda").write(gpu)
    finish(processor, 1)
    finish(gpu, 1)
    for mine, theirs in zip(metrics(processor), metrics(gpu), strict=True):
        if mine["kind"] == "step":
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=0.02)
