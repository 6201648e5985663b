"""The engine against its peers, and the service under load. `make bench-serve`.

Same weights (random, the shape of SmolLM2-135M), same lengths, one thread; ours before and after each peer, the median
taken, because machines are shared. `decode` is the time between the first token and the last, `whole` that of prompt and
answer. The load is put on a real server with the starter model by another process.
"""

import argparse
import contextlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import record, workload

PROMPT, ANSWER = 512, 64
BATCHES = (1, 16)
ADAPTERS, RANK = 16, 16
# Tokens of the document, and of the questions on it.
DOCUMENTS, QUESTIONS, QUESTION, SHORT_ANSWER = (700, 2000), 6, 20, 15
PARTS = ("peers", "share", "int8", "documents", "adapters", "load")


def main() -> None:
    """Run it and write benchmarks/results/serve.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers"), help="an environment with ctranslate2")
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "outcrop-bench")
    parser.add_argument("--measure", help="a measurement, in this process")
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measure(**json.loads(chosen.measure))))
        return
    chosen.work.mkdir(parents=True, exist_ok=True)
    chosen.peers = chosen.peers.absolute()
    model = workload.make_model("135m", chosen.work / "model-135m-None")
    result = record.RESULTS / "serve.json"
    figures: dict[str, Any] = {"ratios": {}, "cases": {}}
    if set(chosen.only) != set(PARTS) and result.exists():
        before = json.loads(result.read_text())
        figures = {name: before[name] for name in ("ratios", "cases", "load") if name in before}
    for part in PARTS:
        if part in chosen.only:
            globals()[f"bench_{part}"](model, chosen, figures)
            record.write("serve", figures)
    print(f"written to {result}")


def tell(case: str, what: str) -> None:
    """A line of the table."""
    print(f"{case:34} {what}", flush=True)


# --- against peers, one thread ------------------------------------------------------------------------------------------


def bench_peers(model: Path, chosen: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Batches of one and of sixteen."""
    for batch in BATCHES:
        for peer, number_format in (("generate", "float32"), ("ctranslate2", "float32"), ("ctranslate2", "int8")):
            name = peer if peer == "generate" else f"{peer}-{'fp32' if number_format == 'float32' else number_format}"
            ours = [_ours(model, number_format, batch)]
            theirs = _peer(chosen.peers, peer, model, number_format, batch)
            ours.append(_ours(model, number_format, batch))
            for case, seconds in (
                ("decode", lambda one: one["all_s"] - one["first_s"]),
                ("whole", lambda one: one["all_s"]),
            ):
                own = statistics.median(map(seconds, ours))
                figures["ratios"][f"{case}-b{batch}/{name}"] = round(seconds(theirs) / own, 2)
                tokens = batch * (ANSWER - 1 if case == "decode" else ANSWER)
                figures["cases"][f"{case}-b{batch}/{name}"] = {
                    "ours_tokens_per_s": round(tokens / own, 1), "theirs_tokens_per_s": round(tokens / seconds(theirs), 1)
                }  # fmt: skip
                tell(
                    f"{case}-b{batch}/{name}",
                    f"{tokens / own:7.1f} tokens/s, {tokens / seconds(theirs):7.1f}: {seconds(theirs) / own:.2f} times",
                )


def bench_share(model: Path, chosen: argparse.Namespace, figures: dict[str, Any]) -> None:
    """How near one request comes to the speed of memory."""
    share = _in_process("share", folder=str(model))
    figures["cases"]["bandwidth-b1"] = share
    tell("bandwidth-b1", f"{share['share']:.0%} of the {share['read_gb_per_s']:.1f} GB/s at which this thread reads, from "
                         f"{share['lowest']:.0%} to {share['highest']:.0%}")  # fmt: skip


def bench_int8(model: Path, chosen: argparse.Namespace, figures: dict[str, Any]) -> None:
    """int8 weights against float32, and what they lose."""
    for batch in BATCHES:
        exact = [_ours(model, "float32", batch)]
        rounded = _ours(model, "int8", batch)
        exact.append(_ours(model, "float32", batch))
        for case, seconds in (
            ("decode", lambda one: one["all_s"] - one["first_s"]),
            ("whole", lambda one: one["all_s"]),
        ):
            ratio = statistics.median(map(seconds, exact)) / seconds(rounded)
            figures["ratios"][f"int8-{case}-b{batch}/float32"] = round(ratio, 2)
            tell(f"int8-{case}-b{batch}/float32", f"{ratio:.2f} times")
    costs = {number_format: _in_process("cost", number_format=number_format) for number_format in ("float32", "int8")}
    figures["cases"]["int8-loss"] = {name: cost["nats_per_token"] for name, cost in costs.items()}
    tell("int8-loss", f"starter model on this project's pages: {costs['float32']['nats_per_token']:.4f} nats a token, "
                      f"in int8 {costs['int8']['nats_per_token']:.4f}")  # fmt: skip


def bench_documents(model: Path, chosen: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Six questions on one document, asked at once."""
    for length in DOCUMENTS:
        took = _in_process("document", folder=str(model), length=length)
        ratio = took["without_s"] / took["with_s"]
        figures["ratios"][f"document-{length}/no-reuse"] = round(ratio, 2)
        figures["cases"][f"document-{length}"] = took
        tell(
            f"document-{length}/no-reuse",
            f"{took['with_s']:.2f} s, {took['without_s']:.2f} s without: {ratio:.1f} times",
        )


def bench_adapters(model: Path, chosen: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Sixteen adapters in one batch."""
    took = _in_process("adapters", folder=str(model), work=str(chosen.work))
    figures["cases"]["adapters-16"] = took
    figures["ratios"]["adapters-16/one-by-one"] = round(took["one_by_one_s"] / took["together_s"], 2)
    figures["ratios"]["adapters-16/one-adapter"] = round(took["one_adapter_s"] / took["together_s"], 2)
    tell("adapters-16 load", f"{took['load_ms']:.0f} ms for one of rank {RANK}")
    tell(
        "adapters-16/one-by-one",
        f"{took['together_s']:.2f} s, {took['one_by_one_s']:.2f} s: {took['one_by_one_s'] / took['together_s']:.2f} times",
    )
    tell("adapters-16/one-adapter", f"mixing costs {took['together_s'] / took['one_adapter_s'] - 1:.0%}")
    tell(
        "adapters-16 answers",
        f"{took['equal']} of {ADAPTERS} equal to the adapter's alone, {took['different']} of them different from the base's",
    )


def _ours(model: Path, number_format: str, batch: int) -> dict[str, Any]:
    return _in_process("answers", folder=str(model), number_format=number_format, batch=batch)


def _in_process(what: str, **arguments: Any) -> dict[str, Any]:
    """A measurement in a process of its own, on one thread."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.serve", "--measure", json.dumps({"what": what, **arguments})],
        env={**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def _peer(peers: Path, peer: str, model: Path, number_format: str, batch: int) -> dict[str, Any]:
    run = subprocess.run(
        [peers / "bin/python", Path(__file__).with_name("serve_peer.py"), peer, model, number_format, str(batch), str(PROMPT), str(ANSWER)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


# --- in a process of its own --------------------------------------------------------------------------------------------


def measure(what: str, folder: str = "", number_format: str = "float32", **arguments: Any) -> dict[str, Any]:
    """One measurement."""
    from outcrop.serving.engines.torch_engine import TorchEngine, prepare

    prepare(1)
    if what == "cost":
        return _cost(number_format)
    engine = TorchEngine(Path(folder), 16, number_format, pause_s=math.inf)  # as batch inference runs it
    engine.warm_up()
    if what == "answers":
        return _answers(engine, **arguments)
    if what == "share":
        return _share(engine)
    return _document(engine, **arguments) if what == "document" else _adapters(engine, **arguments)


def _share(engine: Any) -> dict[str, Any]:
    """Bytes of weights and cache that decoding reads a second, against a sum over as large an array, in turns."""
    import torch

    from outcrop.serving.protocol import Generate

    engine.reuses = False
    numbers = torch.ones(128_000_000)
    one = engine.admit(Generate(tokens=_drawn(random.Random(0), PROMPT), max_tokens=2000, stop_tokens=[]))
    while one.is_reading:
        engine.turn()
    config = engine.config
    weights = (
        sum(size[0] * size[1] for size in engine._runner.adaptable.values()) + config.vocab_size * config.hidden_size
    )
    kept = config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim
    shares, reads = [], []
    for _ in range(15):
        began = time.perf_counter()
        numbers.sum()
        reads.append(numbers.nbytes / (time.perf_counter() - began))
        began = time.perf_counter()
        for _ in range(20):
            engine.turn()
        step = (time.perf_counter() - began) / 20
        shares.append(4 * (weights + kept * one.line.length) / step / reads[-1])
    return {
        "share": round(statistics.median(shares), 3), "lowest": round(min(shares), 3), "highest": round(max(shares), 3),
        "read_gb_per_s": round(statistics.median(reads) / 1e9, 1),
    }  # fmt: skip


def _answer(engine: Any, requests: list[Any], at_once: int = 16) -> tuple[float, list[list[int]]]:
    """Seconds, and greedy answers in the order of the requests."""
    waiting, active = list(range(len(requests))), {}
    began = time.perf_counter()
    while waiting or engine.active:
        while waiting and len(engine.active) < at_once and (one := engine.admit(requests[waiting[0]])):
            active[waiting.pop(0)] = one
        for one in engine.turn():
            if len(one.answer) == one.request.max_tokens:
                engine.drop(one)
    return time.perf_counter() - began, [active[place].answer for place in range(len(requests))]


def _drawn(draw: random.Random, length: int) -> list[int]:
    return [draw.randrange(4, 49_152) for _ in range(length)]


def _answers(engine: Any, batch: int) -> dict[str, Any]:
    from outcrop.serving.protocol import Generate

    engine.reuses, draw = False, random.Random(0)
    prompts = [_drawn(draw, PROMPT) for _ in range(batch)]
    shortest = {}
    for tokens in (1, ANSWER):
        asked = [Generate(tokens=prompt, max_tokens=tokens, stop_tokens=[]) for prompt in prompts]
        shortest[tokens] = min(_answer(engine, asked)[0] for _ in range(4 if batch == 1 else 1))
    config = engine.config
    kept = config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim
    weights = (
        sum(size[0] * size[1] for size in engine._runner.adaptable.values()) + config.vocab_size * config.hidden_size
    )
    return {
        "first_s": shortest[1], "all_s": shortest[ANSWER], "bytes_per_step": 4 * (weights + kept * (PROMPT + ANSWER / 2)),
    }  # fmt: skip


def _cost(number_format: str) -> dict[str, Any]:
    """What the starter model makes of this project's own pages."""
    from tokenizers import Tokenizer

    import outcrop
    from outcrop.serving.engines.torch_engine import TorchEngine
    from outcrop.serving.protocol import Score

    folder = Path(outcrop.__file__).parent / "registry" / "pebble"
    engine = TorchEngine(folder, 2, number_format)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    total = count = 0.0
    for page in sorted((Path(__file__).parents[1] / "docs").glob("*.md")):
        ids = tokenizer.encode(page.read_text(encoding="utf-8")).ids[:500]
        if len(ids) > 1:
            total += engine.score(Score(ids, list(range(1, len(ids)))))
            count += len(ids) - 1
    return {"nats_per_token": round(total / count, 4), "tokens": int(count)}


def _document(engine: Any, length: int) -> dict[str, Any]:
    from outcrop.serving.protocol import Generate

    times: dict[bool, list[float]] = {True: [], False: []}
    answers = {}
    for seed in range(3):
        draw = random.Random(seed)
        document = _drawn(draw, length)
        asked = [
            Generate(tokens=document + _drawn(draw, QUESTION), max_tokens=SHORT_ANSWER, stop_tokens=[])
            for _ in range(QUESTIONS)
        ]
        for engine.reuses in (True, False):
            engine.pages.forget()
            took, answers[engine.reuses] = _answer(engine, asked)
            times[engine.reuses].append(took)
        assert answers[True] == answers[False]
    return {"with_s": statistics.median(times[True]), "without_s": statistics.median(times[False])}


def _adapters(engine: Any, work: str) -> dict[str, Any]:
    """Prompts of 32 to 128 tokens, each for an adapter of its own."""
    from outcrop.serving.protocol import Generate

    folders = [make_adapter(engine, Path(work) / f"adapter-{seed}", seed) for seed in range(ADAPTERS)]
    loads = []
    for name in folders:
        began = time.perf_counter()
        engine.adapters.load(name)
        loads.append(1000 * (time.perf_counter() - began))
    engine.reuses, draw = False, random.Random(0)
    prompts = [_drawn(draw, draw.randint(32, 128)) for _ in range(ADAPTERS)]

    def asked(names: list[str | None]) -> list[Any]:
        return [
            Generate(tokens=prompt, max_tokens=ANSWER, stop_tokens=[], adapter=name)
            for prompt, name in zip(prompts, names, strict=True)
        ]

    mixed: list[str | None] = [*folders]
    _answer(engine, asked(mixed))  # loaded and warm
    rounds = []
    for _ in range(3):
        alone_s, alone = _answer(engine, asked(mixed), at_once=1)
        together_s, together = _answer(engine, asked(mixed))
        same_s, _ = _answer(engine, asked([folders[0]] * ADAPTERS))
        rounds.append((alone_s, together_s, same_s))
    _, plain = _answer(engine, asked([None] * ADAPTERS))
    alone_s, together_s, same_s = (statistics.median(column) for column in zip(*rounds, strict=True))
    return {
        "one_by_one_s": round(alone_s, 3), "together_s": round(together_s, 3), "one_adapter_s": round(same_s, 3),
        "load_ms": round(statistics.median(loads), 1),
        "equal": sum(map(list.__eq__, together, alone)), "different": sum(map(list.__ne__, together, plain)),
    }  # fmt: skip


def make_adapter(engine: Any, folder: Path, seed: int) -> str:
    """An adapter of random numbers in PEFT's layout, large enough to change what is said."""
    import torch
    from safetensors.torch import save_file

    if not (folder / "adapter_model.safetensors").exists():
        folder.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for name, (outputs, inputs) in engine._runner.adaptable.items():
            A_rI, B_Or = torch.randn(RANK, inputs, generator=generator), torch.randn(outputs, RANK, generator=generator)
            tensors[f"base_model.model.{name}.lora_A.weight"] = A_rI / inputs**0.5
            tensors[f"base_model.model.{name}.lora_B.weight"] = B_Or * 0.05
        save_file(tensors, folder / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": "all-linear"}
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


# --- the service under load ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(**settings: str) -> Iterator[dict[str, str]]:
    """A server with a home of its own; what its clients need in their environment."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "OUTCROP_HOME": home, "OUTCROP_OPEN": "true", **settings}
        process = subprocess.Popen(
            [sys.executable, "-m", "outcrop", "serve", "--port", "0"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            endpoint = process.stdout.readline().split(" at ")[1].split()[0]
            yield {
                **os.environ, "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
                "AWS_DEFAULT_REGION": "us-east-1", "OUTCROP_HOME": home,
            }  # fmt: skip
        finally:
            process.terminate()
            process.wait()


def bench_load(model: Path, chosen: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Clients at once, too many clients, and a reserved model among them."""
    with server() as environment:
        load = _load("outcrop.pebble-v1:0", "crowd", environment)
        # The starter is so small that client and wire, not the engine, are what a crowd waits for.
        words, name = _with_words(model, chosen.work / "model-135m-words"), "bench.shape-135m-v1:0"
        subprocess.run(
            [sys.executable, "-m", "outcrop", "models", "add", name, "--from", words], env=environment, check=True
        )
        load["provisioned"] = _load(name, "reserved", environment)
    figures["load"] = load
    for clients, one in load["clients"].items():
        tell(f"{clients} clients", f"{one['tokens_per_s']:7.0f} tokens/s, first token {one['first_p50_ms']:.0f} ms (p50) "
                                   f"{one['first_p99_ms']:.0f} ms (p99)")  # fmt: skip
    over = load["overload"]
    tell("overload", f"{over['asked']} at once: {over['answered']} answered, {over['throttled']} throttled, {over['lost']} lost, "
                     f"longest {over['longest_s']:.1f} s")  # fmt: skip
    figures["ratios"]["provisioned-under-flood/alone"] = round(
        load["provisioned"]["under_flood"] / load["provisioned"]["alone"], 2
    )
    tell("provisioned-under-flood/alone", f"{load['provisioned']['under_flood']:.0f} of {load['provisioned']['alone']:.0f} tokens/s, "
                                          f"while others got {load['provisioned']['others']:.0f}")  # fmt: skip


def _load(model: str, part: str, environment: dict[str, str]) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.serve_load", model, part], env=environment, stdout=subprocess.PIPE, check=True, text=True
    )  # fmt: skip
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def _with_words(model: Path, folder: Path) -> Path:
    """The model with a tokenizer that has a word for each token, so that answers are text."""
    folder.mkdir(exist_ok=True)
    for path in model.iterdir():
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.absolute())
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    size = json.loads((model / "config.json").read_text())["vocab_size"]
    known = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = known | {f"t{number}": number for number in range(len(known), size)}
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


if __name__ == "__main__":
    main()
