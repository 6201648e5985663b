"""A run that is killed goes on as if nothing had happened."""

import json
import random
import signal
import subprocess
import sys
import time
from itertools import chain, repeat
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from outcrop.datasets import Rows
from outcrop.errors import Invalid
from outcrop.training import rehearsal
from outcrop.training.loop import Run, run
from outcrop.training.plan import PROGRESS, Plan, Result, Settings
from outcrop.training.state import STATE
from tests.models import make_llama
from tests.training.test_exactness import trees


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("base"))


def make_run(base: Path, folder: Path, validates: bool = True, **settings: object) -> Path:
    """Fifteen rows, six epochs, four rows a step: 24 steps, evaluated every second one."""
    folder.mkdir()
    rows: Rows = trees()
    rows.write(folder / "train.rows")
    rows.write(folder / "validation.rows")
    said = {
        "epochs": 6, "batch_rows": 4, "learning_rate": 5e-3, "lora_rank": 4, "saves_every_s": 0.0,
        "early_stopping_patience": 10, **settings,
    }  # fmt: skip
    names = ["validation.rows"] if validates else []
    Plan(base=str(base), validation_rows=names, settings=Settings(**said), threads=1).write(folder)
    return folder


def metrics(folder: Path) -> list[dict[str, object]]:
    """What the run said, without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / PROGRESS).read_text().splitlines()]
    clock = ("tokens_per_s", "seconds_left", "seconds", "seconds_error", "memory_bytes")
    return [{name: value for name, value in line.items() if name not in clock} for line in lines]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    result = Result.read(folder)
    assert result is not None
    (file,) = (folder / str(result.checkpoint)).glob("*model.safetensors")
    return load_file(file)


def assert_the_same(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.pain(12)
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_stopped_run_goes_on_bit_for_bit(base: Path, tmp_path: Path, method: str, dropout: float) -> None:
    """No step is repeated or left out, and the random state of dropout goes on."""
    settings = {"method": method, "lora_dropout": dropout if method == "lora" else 0.0}
    validates = dropout > 0
    plain, broken = (make_run(base, tmp_path / name, validates, **settings) for name in ("plain", "broken"))
    run(plain, lambda: False).write(plain)
    for stop_after in (1, 5, 2, 9):
        calls = iter([False] * stop_after + [True])
        assert run(broken, lambda calls=calls: next(calls)).status == "stopped"
    run(broken, lambda: False).write(broken)
    assert_the_same(plain, broken)
    steps = [line["step"] for line in metrics(broken) if line["kind"] == "step"]
    assert steps == list(range(1, 25))


@pytest.mark.pain(12)
def test_a_run_killed_at_random_moments_ends_bit_equal(base: Path, tmp_path: Path) -> None:
    """`make bench-kills` does this thirty times over."""
    plain, killed = (
        make_run(base, tmp_path / name, epochs=40, early_stopping_patience=100) for name in ("plain", "killed")
    )
    run(plain, lambda: False).write(plain)
    draw = random.Random(0)
    kills = 0
    while Result.read(killed) is None:
        child = subprocess.Popen([sys.executable, "-m", "outcrop.training", str(killed)])
        said = (killed / PROGRESS).stat().st_size if (killed / PROGRESS).exists() else 0
        while kills < 4 and child.poll() is None:
            if (killed / PROGRESS).exists() and (killed / PROGRESS).stat().st_size > said + 300:
                time.sleep(draw.uniform(0, 0.15))
                child.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        child.wait()
    assert kills == 4
    assert_the_same(plain, killed)


@pytest.mark.pain(17)
def test_a_state_of_other_data_is_not_taken_up(base: Path, tmp_path: Path) -> None:
    """The key is plan and data, so an edited file begins anew."""
    folder = make_run(base, tmp_path / "run")
    calls = iter([False, False, True])
    run(folder, lambda: next(calls))
    trees(seed=5).write(folder / "train.rows")
    plain = make_run(base, tmp_path / "plain")
    trees(seed=5).write(plain / "train.rows")
    for path in (folder, plain):
        run(path, lambda: False).write(path)
    assert_the_same(folder, plain)


def test_a_half_written_state_is_never_read(base: Path, tmp_path: Path) -> None:
    folder, plain = (make_run(base, tmp_path / name) for name in ("run", "plain"))
    calls = iter([False, False, True])
    run(folder, lambda: next(calls))
    whole = (folder / STATE).read_bytes()
    (folder / STATE).with_suffix(".unfinished").write_bytes(whole[: len(whole) // 2])
    for path in (folder, plain):
        run(path, lambda: False).write(path)
    assert_the_same(folder, plain)


@pytest.mark.pain(11)
def test_what_does_not_fit_is_refused_with_the_numbers(base: Path, tmp_path: Path) -> None:
    """The longest batch is tried before the first step."""
    refused = make_run(base, tmp_path / "refused", epochs=1)
    msgspec.structs.replace(Plan.read(refused), memory_bytes=1_000_000).write(refused)
    with pytest.raises(Invalid, match=r"needs about .* GB for the longest row .* may be used"):
        run(refused, lambda: False)
    assert not (refused / "checkpoints").exists(), "nothing was begun"


def test_what_does_not_fit_at_once_goes_in_smaller_microbatches(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine on which a token takes 10,000 bytes and there is room for 250 beside the optimizer."""
    free, tight = (make_run(base, tmp_path / name, epochs=1) for name in ("free", "tight"))
    run(free, lambda: False).write(free)
    trainable = sum(tensor.numel() for tensor in weights(free).values())
    longest = trees().longest() - 1
    peaks = chain([0, longest * 10_000], repeat(longest * 10_000))
    monkeypatch.setattr(rehearsal, "_peak", lambda: next(peaks))
    monkeypatch.setattr(rehearsal, "_resident", lambda: 0)
    limit = (250 * 10_000 + 5 * 4 * trainable) / rehearsal.MOST_MEMORY
    msgspec.structs.replace(Plan.read(tight), memory_bytes=round(limit)).write(tight)
    run(tight, lambda: False).write(tight)
    planned = metrics(tight)[0]
    assert planned["microbatch_tokens"] <= 250
    assert not planned["checkpoints_activations"]
    one, other = weights(free), weights(tight)
    assert all(torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-5) for name in one)


def test_a_plan_names_what_is_shared_and_leaves_no_trace(base: Path, tmp_path: Path) -> None:
    folder = make_run(base, tmp_path / "run")
    msgspec.structs.replace(Plan.read(folder), rehearses_only=True).write(folder)
    result = run(folder, lambda: False)
    planned = metrics(folder)[0]
    assert result.step == 0
    assert planned["computed_tokens"] < 0.8 * planned["tokens"]
    assert planned["groups_save"] > 0.05
    assert not list((folder / "checkpoints").iterdir())


def test_how_long_the_rehearsal_took_does_not_show_in_the_result(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [make_run(base, tmp_path / name, lora_dropout=0.3, epochs=1) for name in ("long", "short")]
    for folder, timed in zip(folders, (6, 1), strict=True):
        monkeypatch.setattr(rehearsal, "TIMED", timed)
        run(folder, lambda: False).write(folder)
    assert_the_same(*folders)


def test_a_run_cut_off_in_its_rehearsal_rehearses_again(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, cut = (make_run(base, tmp_path / name, lora_dropout=0.3, epochs=1) for name in ("plain", "cut"))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Run, "_tell", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        run(cut, lambda: False)
    assert (cut / STATE).exists()
    for folder in (plain, cut):
        run(folder, lambda: False).write(folder)
    assert_the_same(plain, cut)
