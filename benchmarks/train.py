"""Training against its peers, on one thread of the processor. `make bench-train`.

Every system gets the same tokens in the same steps and is timed by the CPU seconds of its process, the first step left
out. Ours is measured before and after each peer and the median taken, because machines are shared. Figures are ratios of
examples per CPU second; `trl-fp32` is TRL in float32 without activation checkpointing, `trl-defaults` as it comes.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import record, workload

BATCH = 6
# case: model, questions per context (or the name of a real set), steps, and the peers
CASES: dict[str, tuple[str, int | str, int, tuple[str, ...]]] = {
    "tatqa-15m": ("15m", 6, 4, ("trl-fp32", "trl-defaults", "transformers")),
    "unshared-15m": ("15m", 1, 4, ("trl-fp32", "transformers")),
    "tatqa-real-15m": ("15m", "tatqa", 4, ("trl-fp32", "transformers")),
    "wtq-real-15m": ("15m", "wtq", 4, ("trl-fp32", "transformers")),
    "banking77-real-15m": ("15m", "banking77", 4, ("trl-fp32", "transformers")),
    "tatqa-135m": ("135m", 6, 3, ("trl-fp32", "transformers", "trl-defaults")),
    "unshared-135m": ("135m", 1, 3, ("trl-fp32", "transformers")),
}


def main() -> None:
    """Run it and write benchmarks/results/train.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers"), help="an environment with trl and peft")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=[*CASES, "growth", "equal", "none"])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "outcrop-bench")
    parser.add_argument("--measure", nargs=3, metavar=("MODEL", "ROWS", "STEPS"), help="ours, in this process")
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measure(Path(chosen.measure[0]), Path(chosen.measure[1]), int(chosen.measure[2]))))
        return
    chosen.work.mkdir(parents=True, exist_ok=True)
    chosen.peers = chosen.peers.absolute()  # the peers run in another folder
    everything = chosen.only == list(CASES)
    figures: dict[str, Any] = {"ratios": {}, "memory_ratios": {}, "cases": {}}
    result = record.RESULTS / "train.json"
    if not everything and result.exists():
        before = json.loads(result.read_text())
        figures |= {
            name: before[name] for name in ("ratios", "memory_ratios", "cases", "growth", "equal") if name in before
        }
    print(f"{'case':20} {'system':14} {'examples/CPU-s':>14} {'ours is':>8} {'GB':>6} {'loss':>8}")
    for case in CASES:
        if case in chosen.only:
            _compare(case, chosen, figures)
            record.write("train", figures)
    if everything or "growth" in chosen.only:
        figures["growth"] = growth(chosen.work)
        record.write("train", figures)
    if everything or "equal" in chosen.only:
        figures["equal"] = {shape: equal(shape, chosen.work) for shape in ("15m", "135m")}
        record.write("train", figures)
    print(f"written to {result}")


def _compare(case: str, chosen: argparse.Namespace, figures: dict[str, Any]) -> None:
    shape, kind, steps, peers = CASES[case]
    vocabulary = 50_257 if isinstance(kind, str) else None
    model = chosen.work / f"model-{shape}-{vocabulary}"
    subprocess.run(
        [chosen.peers / "bin/python", "-c",
         f"import workload, pathlib; workload.make_model({shape!r}, pathlib.Path({str(model)!r}), {vocabulary})"],
        cwd=Path(__file__).parent, check=True, capture_output=True,
    )  # fmt: skip
    if isinstance(kind, str):
        rows = workload.real(kind, chosen.data, BATCH * steps)
    else:
        rows = workload.drawn(-(-BATCH * steps // kind), kind, workload.SHAPES[shape][5])
    file = chosen.work / f"{case}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ours = [sys.executable, "-m", "benchmarks.train", "--measure", str(model), str(file), str(steps)]
    runs = [_run(ours)]
    found: dict[str, dict[str, Any]] = {}
    for peer in peers:
        script = str(Path(__file__).parent / "train_peer.py")
        found[peer] = _run(
            [str(chosen.peers / "bin/python"), script, peer, str(model), str(file), str(steps), str(BATCH)]
        )
        runs.append(_run(ours))
    own = min(runs, key=lambda run: abs(_rate(run) - statistics.median(map(_rate, runs))))
    rate = statistics.median(map(_rate, runs))
    figures["cases"][case] = {
        "ours": {**own, "examples_per_cpu_s": rate, "runs": [_rate(run) for run in runs]},
        **{peer: {**run, "examples_per_cpu_s": _rate(run)} for peer, run in found.items()},
    }
    peak = own["peak_bytes"]
    print(f"{case:20} {'outcrop':14} {rate:14.3f} {'':8} {peak / 1e9:6.2f} {own['losses'][0]:8.4f}   "
          f"{own['matmul_share']:.0%} of the float32 matmul rate ({own['matmul_gflops']:.0f} GFLOP/s)", flush=True)  # fmt: skip
    for peer, run in found.items():
        figures["ratios"][f"{case}/{peer}"] = round(rate / _rate(run), 2)
        figures["memory_ratios"][f"{case}/{peer}"] = round(peak / run["peak_bytes"], 3)
        print(f"{'':20} {peer:14} {_rate(run):14.3f} {rate / _rate(run):7.1f}x {run['peak_bytes'] / 1e9:6.2f} "
              f"{run['losses'][0]:8.4f}", flush=True)  # fmt: skip


def _rate(run: dict[str, Any]) -> float:
    """Examples per CPU second, the first step left out."""
    return BATCH * len(run["cpu_s"][1:]) / sum(run["cpu_s"][1:])


def _run(command: list[str]) -> dict[str, Any]:
    from outcrop.jobs.children import QUIET

    quiet = QUIET if "benchmarks.train" in command else {}
    environment = {**os.environ, **quiet, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def load_rows(file: Path) -> Any:
    """The rows as training reads them."""
    from outcrop.datasets import Rows
    from outcrop.rendering import Rendered

    made = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return Rows.of(
        Rendered(row["prompt"] + row["answer"], [False] * len(row["prompt"]) + [True] * len(row["answer"]))
        for row in made
    )


def measure(model: Path, file: Path, steps: int, batch: int = BATCH) -> dict[str, Any]:
    """Ours in this process: CPU seconds of each step, losses, memory, and the share of the matmul rate."""
    import torch
    import transformers

    from outcrop import arithmetic
    from outcrop.training.batches import cut
    from outcrop.training.model import Trainee
    from outcrop.training.plan import Settings
    from outcrop.training.rehearsal import Costs
    from outcrop.training.step import step

    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    arithmetic.use(arithmetic.fastest())
    rows = load_rows(file)
    trainee = Trainee(model, Settings(lora_rank=16, lora_alpha=32.0), rows.longest())
    optimizer = trainee.flat.optimizer(2e-4, 0.95)
    costs, operations = Costs.of(trainee), []
    cpu, losses, tokens = [], [], []
    for number in range(steps):
        began = time.process_time()
        batches = list(cut(rows, range(number * batch, (number + 1) * batch), 8192))
        result = step(trainee, optimizer, batches, 1.0)
        cpu.append(time.process_time() - began)
        losses.append(result.loss)
        tokens.append(result.tokens)
        operations.append(sum(map(costs, batches)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    gflops = matmul_gflops(trainee.model.config)
    achieved = sum(operations[1:]) / sum(cpu[1:]) / 1e9
    return {
        "cpu_s": cpu, "losses": losses, "tokens": tokens, "peak_bytes": peak, "matmul_gflops": gflops,
        "matmul_share": achieved / gflops,
    }  # fmt: skip


def matmul_gflops(config: Any) -> float:
    """The rate of float32 products of 800 rows with the model's own matrices, median of several."""
    import torch

    width, inner = config.hidden_size, config.intermediate_size
    pairs = [
        (torch.randn(2 * inner, width), torch.randn(800, width)),
        (torch.randn(width, inner), torch.randn(800, inner)),
    ]
    rates = []
    for _ in range(9):
        began = time.process_time()
        for weight, x in pairs:
            for _ in range(4):
                torch.mm(x, weight.T)
        rates.append(4 * sum(2 * x.shape[0] * w.numel() for w, x in pairs) / (time.process_time() - began) / 1e9)
    return statistics.median(rates)


def growth(work: Path) -> list[dict[str, Any]]:
    """How cost and memory grow, at the 15 M shape: CPU seconds per row, one axis at a time."""
    table = []
    axes: list[tuple[str, int, int, tuple[int, int], int]] = [
        *((f"questions per context {n}", 48, n, (500, 900), 32_000) for n in (1, 2, 6, 12, 48)),
        *((f"context of {n} tokens", 12, 6, (n, n), 32_000) for n in (200, 700, 2000)),
        *((f"vocabulary of {n:,}", 12, 6, (500, 900), n) for n in (2_000, 32_000, 128_000)),
    ]
    print(f"\n{'':28} {'CPU-s per row':>13} {'tokens computed':>16} {'GB':>6}")
    for name, batch, questions, context, vocabulary in axes:
        model = workload.make_model("15m", work / f"model-15m-{vocabulary}", vocabulary)
        file = work / "growth.jsonl"
        rows = workload.drawn(3 * batch // questions, questions, vocabulary, context)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        code = "import sys, json; from pathlib import Path; from benchmarks.train import measure; "
        code += f"print(json.dumps(measure(Path({str(model)!r}), Path({str(file)!r}), 3, {batch})))"
        run = _run([sys.executable, "-c", code, "benchmarks.train"])
        line = {
            "what": name, "cpu_s_per_row": sum(run["cpu_s"][1:]) / (2 * batch), "tokens": sum(run["tokens"]),
            "row_tokens": sum(len(r["prompt"]) + len(r["answer"]) for r in rows), "peak_bytes": run["peak_bytes"],
        }  # fmt: skip
        table.append(line)
        print(f"{name:28} {line['cpu_s_per_row']:13.4f} {line['tokens'] / line['row_tokens']:15.0%} "
              f"{line['peak_bytes'] / 1e9:6.2f}", flush=True)  # fmt: skip
    for number in (1_000, 10_000, 100_000):
        peak, seconds = _rehearse(work, number)
        table.append({"what": f"{number:,} rows", "peak_bytes": peak, "rehearsal_s": seconds})
        print(
            f"{f'{number:,} rows of 500 tokens':28} {'rehearsed in':>13} {seconds:14.1f}s {peak / 1e9:6.2f}", flush=True
        )
    return table


def _rehearse(work: Path, number: int) -> tuple[int, float]:
    """Memory and time of a rehearsal over so many rows of 500 tokens."""
    import numpy as np

    from outcrop.datasets import Rows
    from outcrop.jobs.children import python_child
    from outcrop.training.plan import Plan, Result, Settings

    run = Path(tempfile.mkdtemp(dir=work))
    model = workload.make_model("15m", work / "model-15m-32000", 32_000)
    tokens = np.random.default_rng(0).integers(4, 32_000, (number, 500), dtype=np.int32)
    learned = np.zeros((number, 500), bool)
    learned[:, -15:] = True
    Rows(tokens.reshape(-1), learned.reshape(-1), np.arange(number + 1) * 500).write(run / "train.rows")
    del tokens, learned
    Plan(base=str(model), settings=Settings(epochs=1), threads=1, rehearses_only=True).write(run)
    began = time.monotonic()
    with (run / "log").open("wb") as log:
        python_child("outcrop.training", [str(run)], log, {"OMP_NUM_THREADS": "1"}).wait()
    result = Result.read(run)
    if result is None or result.status == "failed":
        sys.exit(f"the rehearsal failed: {(run / 'log').read_text()[-1000:]}")
    return result.peak_memory, time.monotonic() - began


def equal(shape: str, work: Path) -> dict[str, float]:
    """How far loss and gradients of a tree are from those of each row by itself through transformers and autograd."""
    import torch
    import torch.nn.functional as F
    import transformers

    from outcrop.training.batches import cut
    from outcrop.training.model import Trainee
    from outcrop.training.plan import Settings

    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    model = workload.make_model(shape, work / f"model-{shape}-None")
    file = work / "equal.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in workload.drawn(1, 6, workload.SHAPES[shape][5])))
    rows = load_rows(file)
    trainee = Trainee(model, Settings(lora_rank=16, lora_alpha=32.0), rows.longest())
    for adapter in trainee.adapters.values():
        adapter.B_Or.data.normal_(std=0.02, generator=torch.Generator().manual_seed(1))
    trainee.learner.refresh()
    answer_tokens = int(rows.is_answer.sum())
    trainee.flat.zero_grad()
    loss = sum(trainee.learner.learn(b, 1 / answer_tokens) for b in cut(rows, range(len(rows)), 8192)) / answer_tokens
    names = [(name, side) for name in trainee.adapters for side in ("A_rI", "B_Or")]
    ours = [getattr(trainee.adapters[name], side).grad.clone() for name, side in names]
    trainee.flat.zero_grad()
    trainee.model.set_attn_implementation("sdpa")
    expected = 0.0
    for tokens, is_answer in rows:
        ids = torch.tensor(tokens, dtype=torch.int64)[None]
        learned = torch.tensor(is_answer[1:])
        logits = trainee.model(ids).logits[0, :-1][learned]
        part = F.cross_entropy(logits, ids[0, 1:][learned], reduction="sum") / answer_tokens
        part.backward()  # type: ignore[no-untyped-call]
        expected += part.item()
    theirs = [getattr(trainee.adapters[name], side).grad for name, side in names]
    worst = max(float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True))
    together = float(torch.cat([(a - b).flatten() for a, b in zip(ours, theirs, strict=True)]).norm()
                     / torch.cat([b.flatten() for b in theirs]).norm())  # fmt: skip
    found = {"loss": abs(loss - expected) / expected, "gradients": together, "worst_tensor": worst}
    print(f"{shape}: tree against rows one by one: loss {found['loss']:.1e}, gradients {together:.1e}, worst of "
          f"{len(names)} tensors {worst:.1e} (relative, {platform.processor() or 'float32'})", flush=True)  # fmt: skip
    return found


if __name__ == "__main__":
    main()
