"""A prompt -> text, with what it cost."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from outcrop.errors import Invalid
from outcrop.registry import Registry
from outcrop.rendering import Conversation, Decoder, Renderer
from outcrop.serving import Generate, Serving, Target

# What a request that names no limit may generate; a base model's context may be smaller.
DEFAULT_MAX_TOKENS = 512
# Below this a temperature means the likeliest token, and dividing by it would overflow.
COLDEST = 1e-5
MOST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Ask:
    """What is asked of a model. `prompt` is a conversation, or text that the caller wrote in the model's own form."""

    prompt: Conversation | str
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop_sequences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Delta:
    """A piece of an answer."""

    text: str


@dataclass
class Answer:
    """How an answer ended. `stopped_by` is "end", "length", or "sequence" with the sequence in `sequence`."""

    text: str = ""
    stopped_by: str = "end"
    sequence: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    latency_ms: int = 0
    first_token_ms: int = 0


@dataclass(frozen=True)
class Invocation:
    """What is needed to answer."""

    serving: Serving
    registry: Registry


@lru_cache(maxsize=32)
def _renderer(folder: Path, modified: float) -> Renderer:
    return Renderer(folder)


def renderer_of(target: Target) -> Renderer:
    """The renderer of a target's base, kept while its tokenizer does not change."""
    tokenizer = target.folder / "tokenizer.json"
    return _renderer(target.folder, tokenizer.stat().st_mtime if tokenizer.exists() else 0.0)


def _tokens(renderer: Renderer, prompt: Conversation | str) -> list[int]:
    return renderer.raw_prompt(prompt) if isinstance(prompt, str) else renderer.prompt(prompt)


def count(invocation: Invocation, model_id: str, prompt: Conversation | str) -> int:
    """How many tokens a prompt has for a model. Raises NotFound, Invalid."""
    return len(_tokens(renderer_of(invocation.serving.target(model_id)), prompt))


def answer(invocation: Invocation, model_id: str, ask: Ask) -> Answer:
    """The whole answer. Raises NotFound, Invalid, and what the engine raises."""
    *_, last = stream(invocation, model_id, ask)
    assert isinstance(last, Answer)
    return last


def stream(invocation: Invocation, model_id: str, ask: Ask) -> Iterator[Delta | Answer]:
    """Pieces of the answer as they come, the Answer last. Closing the iterator cancels what is being generated.

    Text that may be the beginning of a stop sequence is held back until it is known. Raises Invalid when the prompt
    does not fit the model's context.
    """
    began = time.perf_counter()
    target = invocation.serving.target(model_id)
    renderer = renderer_of(target)
    tokens = _tokens(renderer, ask.prompt)
    context = invocation.registry.context_of(target.weights) or DEFAULT_MAX_TOKENS
    room = context - len(tokens)
    if room < 1:
        raise Invalid(f"Input is too long for requested model: {len(tokens)} tokens, its context has {context}")
    request = Generate(
        tokens=tokens, max_tokens=min(ask.max_tokens or DEFAULT_MAX_TOKENS, room), stop_tokens=sorted(renderer.stop_tokens),
        temperature=ask.temperature if ask.temperature >= COLDEST else 0.0, top_p=ask.top_p, top_k=ask.top_k, seed=ask.seed,
    )  # fmt: skip
    result = Answer(input_tokens=len(tokens))
    writer = _Writer(renderer.decoder(), ask.stop_sequences)
    replies = invocation.serving.generate(target, request)
    try:
        for reply in replies:
            if not result.first_token_ms:
                result.first_token_ms = _ms_since(began)
            if reply.token is not None:
                result.output_tokens += 1
                if piece := writer.push(reply.token):
                    result.text += piece
                    yield Delta(piece)
                if writer.found:
                    result.stopped_by, result.sequence = "sequence", writer.found
                    break
            if reply.done:
                result.output_tokens += reply.done == "stop"  # the end-of-turn token was generated and is counted
                result.stopped_by = {"stop": "end", "length": "length"}[reply.done]
                if piece := writer.flush():
                    result.text += piece
                    yield Delta(piece)
    finally:
        replies.close()  # type: ignore[attr-defined]
    if writer.found:
        result.stopped_by, result.sequence = "sequence", writer.found
    result.latency_ms = _ms_since(began)
    yield result


def _ms_since(began: float) -> int:
    return round((time.perf_counter() - began) * 1000)


@dataclass
class _Writer:
    """Tokens into text that is certain not to belong to a stop sequence."""

    decoder: Decoder
    stops: tuple[str, ...]
    found: str = ""
    _held: str = field(default="")

    def push(self, token: int) -> str:
        self._held += self.decoder.push(token)
        return self._release(final=False)

    def flush(self) -> str:
        self._held += self.decoder.flush()
        return self._release(final=True)

    def _release(self, final: bool) -> str:
        places = [(self._held.find(stop), stop) for stop in self.stops if stop in self._held]
        if places:
            place, self.found = min(places)
            text, self._held = self._held[:place], ""
            return text
        keep = 0 if final else max((_overlap(self._held, stop) for stop in self.stops), default=0)
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text


def _overlap(text: str, stop: str) -> int:
    """How much of the text's end could begin the stop sequence."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
