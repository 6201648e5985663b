"""The embedded engine: continuous batching of requests and adapters over one base, on PyTorch and compiled kernels.

Each turn is one pass: the next token of every request that has its prompt behind it, and with them as much of the waiting
prompts as can be read without holding up the others. Shape legend: U rows whose logits are wanted, V vocabulary.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from llguidance import LLMatcher
from transformers import AutoModelForCausalLM, PreTrainedModel

from outcrop import arithmetic
from outcrop.machine import free_memory
from outcrop.serving.engines import decoder, kernels
from outcrop.serving.engines.adapters import Adapters, Place, Pool
from outcrop.serving.engines.batch import Batch, Part
from outcrop.serving.engines.constraints import Constraints, forbid
from outcrop.serving.engines.decoder import Decoder
from outcrop.serving.engines.pages import PLACES, Line, Pages
from outcrop.serving.engines.sampling import generator_for, likelihoods, sample
from outcrop.serving.engines.transformed import Transformed
from outcrop.serving.protocol import Generate, Reply, Score

Array = np.ndarray[Any, Any]

# Rows of a pass that reads prompts: these when nobody waits for a next token, else as many as take the pause that is
# allowed; in steps of STEP, which matrix products like.
MOST_ROWS, STEP = 512, 64
PAUSE_S = 0.25
# A request of provisioned throughput is promised this share of the rate that a request gets alone: some two may then be
# served together with on-demand requests, several more without.
PROMISED_SHARE = 0.5
WARMING_TOKENS = 16
# Of the memory that is free when an engine starts, this much may hold keys and values, and this much adapters.
CACHE_SHARE, ADAPTER_SHARE = 0.25, 0.1
MOST_CACHE_TOKENS = 1 << 20


class Runner(Protocol):
    """What computes hidden states."""

    @property
    def adaptable(self) -> dict[str, tuple[int, int]]:
        """Sizes [O, I] of the layers that an adapter may change."""

    head: Any

    def take_pools(self, pools: Mapping[str, Pool]) -> None:
        """Where the adapters lie."""

    def hidden(self, batch: Batch, pages: Pages) -> Array:
        """The last hidden states of the wanted rows, normed, [U, W]."""


@dataclass
class Active:
    """A request in the engine."""

    request: Generate
    generator: torch.Generator | None
    line: Line
    place: Place | None
    answer: list[int] = field(default_factory=list)
    said: Reply = field(default_factory=Reply)
    """What the last pass gave."""
    matcher: LLMatcher | None = None
    """Where it is in its grammar."""
    promised: float = 0.0
    """Tokens a second; 0 for none."""
    began: float = 0.0

    @property
    def is_reading(self) -> bool:
        """Whether its prompt is not all in the cache."""
        return not self.answer

    @property
    def behind_s(self) -> float:
        """By how long its answer is behind the rate that it is promised; 0 without a promise."""
        if not self.promised:
            return 0.0
        return max(0.0, time.monotonic() - self.began - len(self.answer) / self.promised)


class TorchEngine:
    """One base model with its adapters, cache and batch.

    `cache_bytes` and `adapter_bytes` of 0 take a share of the memory that is free. Reading a prompt holds the others'
    next tokens up by `pause_s` at most; the longer that is, the more is done in all.
    """

    def __init__(
        self, folder: Path, slots: int, number_format: str = "float32", cache_bytes: int = 0, adapter_bytes: int = 0,
        pause_s: float = PAUSE_S,
    ) -> None:  # fmt: skip
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True,
        ).eval()  # fmt: skip
        self.config: Any = model.config
        free = free_memory()
        self._runner: Runner = (
            Decoder(model, number_format) if decoder.fits(model.config) else Transformed(model, number_format)
        )
        self.adapters = Adapters(self._runner.adaptable, adapter_bytes or int(free * ADAPTER_SHARE))
        self._runner.take_pools(self.adapters.pools)
        self.pages = Pages(_pages_for(self.config, cache_bytes or int(free * CACHE_SHARE)))
        self._constraints = Constraints(folder)
        self.slots, self._pause_s = slots, pause_s
        self.active: list[Active] = []
        self.reuses = True
        self._prompt_rate = 0.0  # tokens a second, of the last passes that read prompts
        self.promise = 0.0
        """Tokens a second of a provisioned request; known after `warm_up`."""

    def warm_up(self) -> None:
        """Have every kernel compiled, and measure how fast a request is answered that is alone."""
        asked = Generate(tokens=list(range(STEP)), max_tokens=WARMING_TOKENS, stop_tokens=[])
        one = self.admit(asked)
        assert one is not None
        steps = []
        while len(one.answer) < WARMING_TOKENS:
            began = time.perf_counter()
            self.turn()
            steps.append(time.perf_counter() - began)
        self.promise = PROMISED_SHARE / sorted(steps)[len(steps) // 2]
        self.drop(one)
        self.pages.forget()

    # --- requests in and out ----------------------------------------------------------------------------------------

    def admit(self, request: Generate) -> Active | None:
        """Take a request in; None when there is no room now, or when another is computing what it can share.

        Raises ValueError for what can never be answered here.
        """
        if len(self.active) >= self.slots:
            return None
        if request.adapter is not None and not self.adapters.load(request.adapter):
            return None
        line = self.pages.begin(request.tokens, request.adapter, len(request.tokens) + request.max_tokens, self.reuses)
        if line is None:
            return None
        key = line.next_key()
        if (
            self.reuses
            and key is not None
            and any(one.is_reading and one.line.next_key() == key for one in self.active)
        ):
            self.pages.end(line)
            return None
        matcher = None
        if request.grammar is not None:
            try:
                matcher = self._constraints.begin(request.grammar, self._runner.head.sizes[0], request.stop_tokens)
            except ValueError:
                self.pages.end(line)
                raise
        one = Active(request, generator_for(request), line, self.adapters.use(request.adapter), matcher=matcher)
        one.promised = self.promise if request.provisioned else 0.0
        one.began = time.monotonic()
        self.active.append(one)
        return one

    def drop(self, one: Active) -> None:
        """Take a request out of the batch."""
        self.active.remove(one)
        self.pages.end(one.line)
        self.adapters.leave(one.request.adapter)

    # --- passes -----------------------------------------------------------------------------------------------------

    def turn(self) -> list[Active]:
        """One pass; those that have a new token, each with it in `said`."""
        chosen = self._choose()
        began = time.perf_counter()
        logits_UV = self.compute([part for _, part in chosen])
        took = time.perf_counter() - began
        read = sum(part.count for one, part in chosen if one.is_reading)
        if read >= STEP // 2:
            self._prompt_rate = read / took if not self._prompt_rate else (self._prompt_rate + read / took) / 2
        told = [one for one, part in chosen if part.is_wanted]
        for one, logits_V in zip(told, logits_UV, strict=True):
            if one.matcher is not None:
                forbid(logits_V, one.matcher)
        best_U = logits_UV.argmax(-1).tolist()
        for one, logits_V, best in zip(told, logits_UV, best_U, strict=True):
            token = best if one.generator is None else sample(logits_V, one.request, one.generator)
            if one.matcher is not None:
                one.matcher.consume_token(token)
            one.answer.append(token)
            one.line.tokens.append(token)
            if one.request.logprobs is None:
                one.said = Reply(token=token)
            else:
                own, top = likelihoods(logits_V, token, one.request.logprobs)
                one.said = Reply(token=token, logprob=own, top=top)
        return told

    def _choose(self) -> list[tuple[Active, Part]]:
        """What the next pass computes: those behind their promised rate alone if there are any, else everybody."""
        behind = [one for one in self.active if one.behind_s > 0]
        able = behind or self.active
        chosen = [(one, Part(one.line, 1, one.place)) for one in able if not one.is_reading]
        budget = MOST_ROWS
        if chosen:
            rows = max(len(chosen) // STEP + 1, int(min(self._pause_s * self._prompt_rate, MOST_ROWS)) // STEP) * STEP
            budget = min(budget, rows) - len(chosen)
        reading = sorted((one for one in able if one.is_reading), key=lambda one: not one.promised)
        for one in reading:
            left = len(one.line.tokens) - one.line.length
            count = min(left, budget)
            if count:
                chosen.append((one, Part(one.line, count, one.place, is_wanted=count == left)))
                budget -= count
        return chosen

    def compute(self, parts: list[Part]) -> Array:
        """One pass over the next tokens of some lines; the logits [U, V] that are wanted."""
        for part in parts:
            self.pages.extend(part.line, part.line.length + part.count)
        batch = Batch(parts)
        hidden_UW = self._runner.hidden(batch, self.pages)
        for part in parts:
            self.pages.computed(part.line, part.line.length + part.count)
        return self._logits(hidden_UW)

    def _logits(self, hidden_UW: Array) -> Array:
        logits_UV: Array = self._runner.head.product(hidden_UW)
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits_UV if cap is None else np.tanh(logits_UV / cap) * cap

    def score(self, request: Score) -> float:
        """What the tokens at the request's places cost, summed (nats); the batch under way is left as it is.

        Raises ValueError when there is no room for it.
        """
        if request.adapter is not None and not self.adapters.load(request.adapter):
            raise ValueError("all memory for adapters is in use")
        line = self.pages.begin(request.tokens, request.adapter, len(request.tokens), reuses=False)
        if line is None:
            raise ValueError("the cache is in use")
        place = self.adapters.use(request.adapter)
        try:
            part = Part(line, len(request.tokens) - 1, place)
            self.pages.extend(line, part.count)
            batch = Batch([part])
            places = np.array(request.places, np.int64)
            batch.wanted_U = places - 1
            logits = torch.from_numpy(self._logits(self._runner.hidden(batch, self.pages)))
            targets = torch.tensor(request.tokens)[torch.from_numpy(places)]
            return float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        finally:
            self.pages.end(line)
            self.adapters.leave(request.adapter)


def _pages_for(config: Any, budget: int) -> int:
    """Pages of keys and values within so many bytes; the sizes as configs of all families give them, roughly."""
    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    kv_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    page_bytes: int = text.num_hidden_layers * 2 * kv_heads * width * PLACES * 4
    return max(8, min(budget // page_bytes, MOST_CACHE_TOKENS // PLACES))


def prepare(threads: int) -> None:
    """Settle how this process computes, before anybody waits."""
    torch.set_num_threads(threads)
    kernels.use_threads(threads)
    arithmetic.fastest()
