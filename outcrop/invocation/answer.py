"""A prompt -> text, with what it cost."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from llguidance import LLMatcher

from outcrop.errors import Invalid, ModelFailed, NotReady, Throttled
from outcrop.registry import Registry
from outcrop.rendering import Conversation, Decoder, Renderer, ToolCall, read_calls, words_before_calls
from outcrop.serving import Generate, Reply, Serving, Target

# What a request that names no limit may generate; a base model's context may be smaller.
DEFAULT_MAX_TOKENS = 512
# Below this a temperature means the likeliest token, and dividing by it would overflow.
COLDEST = 1e-5
MOST_SEED = 2**63 - 1
# An engine that was full is asked again after so long.
FULL_S = 0.2


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
    schema: str | None = None
    """A JSON schema that the answer must follow."""
    tool_choice: str = "auto"
    """"auto", "any" (a tool must be called), or "tool:" and the name of the one."""
    logprobs: int | None = None
    """So many of the likeliest tokens are told with each one's log-probability."""


@dataclass(frozen=True)
class Likelihood:
    """A token that was drawn: its text, log-probability (nats), and those of the likeliest in its place."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Delta:
    """A piece of an answer, and its tokens where they were asked for."""

    text: str
    tokens: tuple[Likelihood, ...] = ()


@dataclass
class Answer:
    """How an answer ended. `stopped_by` is "end", "length", "calls", or "sequence" with the sequence in `sequence`."""

    text: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    tokens: list[Likelihood] = field(default_factory=list)
    stopped_by: str = "end"
    sequence: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    latency_ms: int = 0
    first_token_ms: int = 0


@dataclass(frozen=True)
class Invocation:
    """What is needed to answer. When `gone` is set, nobody waits for the answer any more."""

    serving: Serving
    registry: Registry
    gone: threading.Event = field(default_factory=threading.Event)


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


def loss(invocation: Invocation, model_id: str, told: Conversation) -> tuple[float, int]:
    """What a conversation's last answer costs a model after all that is before it (nats, its end included), and how many tokens it has.

    Raises NotFound, Invalid when it does not fit, and what the engine raises.
    """
    target = invocation.serving.target(model_id)
    row = renderer_of(target).training_row(told)
    context = invocation.registry.context_of(target.weights) or DEFAULT_MAX_TOKENS
    if len(row.tokens) > context:
        raise Invalid(f"Input is too long for requested model: {len(row.tokens)} tokens, its context has {context}")
    places = []
    for place in range(len(row.tokens) - 1, 0, -1):
        if row.is_answer[place]:
            places.append(place)
        elif places:
            break
    return invocation.serving.score(target, row.tokens, places[::-1]), len(places)


def answer(invocation: Invocation, model_id: str, ask: Ask) -> Answer:
    """The whole answer. Raises NotFound, Invalid, and what the engine raises."""
    *_, last = stream(invocation, model_id, ask)
    assert isinstance(last, Answer)
    return last


def answer_when_free(invocation: Invocation, model_id: str, ask: Ask) -> Answer:
    """The whole answer of an engine that may be loading or full: it is waited for. Raises as `answer` does, but for these two."""
    while True:
        try:
            return answer(invocation, model_id, ask)
        except (Throttled, NotReady):
            time.sleep(FULL_S)


def stream(invocation: Invocation, model_id: str, ask: Ask) -> Iterator[Delta | Answer]:
    """Pieces of the answer as they come, the Answer last. Closing the iterator cancels what is being generated.

    Text that may be the beginning of a stop sequence or of a call is held back until it is known. Raises Invalid when
    the prompt does not fit the model's context, and for a schema that cannot be followed.
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
        logprobs=ask.logprobs, grammar=grammar_of(ask),
    )  # fmt: skip
    result = Answer(input_tokens=len(tokens))
    tools = ask.prompt.tools if isinstance(ask.prompt, Conversation) else ()
    writer = _Writer(renderer.decoder(), ask.stop_sequences, {tool.name for tool in tools})
    replies = invocation.serving.generate(target, request)

    def written(piece: str) -> Iterator[Delta]:
        told = tuple(result.tokens[told_until:])
        if piece or told:
            result.text += piece
            yield Delta(piece, told)

    told_until = 0
    try:
        for reply in replies:
            if invocation.gone.is_set():
                raise ModelFailed("the client left while it was being answered")
            if not result.first_token_ms:
                result.first_token_ms = _ms_since(began)
            if reply.token is not None:
                result.output_tokens += 1
                if reply.logprob is not None:
                    result.tokens.append(_likelihood(renderer, reply))
                yield from written(writer.push(reply.token))
                told_until = len(result.tokens)
                if writer.found:
                    break
            if reply.done:
                result.output_tokens += reply.done == "stop"  # the end-of-turn token was generated and is counted
                result.stopped_by = {"stop": "end", "length": "length"}[reply.done]
                rest = writer.flush()
                result.calls = writer.calls
                yield from written("" if result.calls else rest)
    finally:
        replies.close()  # type: ignore[attr-defined]
    if writer.found:
        result.stopped_by, result.sequence = "sequence", writer.found
    if result.calls:
        result.stopped_by = "calls"
    result.latency_ms = _ms_since(began)
    yield result


def grammar_of(ask: Ask) -> str | None:
    """What the answer must follow, in llguidance's form: a schema, or a call of one of the tools.

    Without spaces between JSON's parts: a small model may otherwise write them for ever. Raises Invalid.
    """
    schema = ask.schema
    tools = ask.prompt.tools if isinstance(ask.prompt, Conversation) else ()
    if ask.tool_choice != "auto":
        wanted = [tool for tool in tools if ask.tool_choice in ("any", f"tool:{tool.name}")]
        if not wanted:
            raise Invalid(f"toolChoice names {ask.tool_choice.removeprefix('tool:')!r}, which is not among the tools")
        calls = [
            {
                "type": "object", "additionalProperties": False, "required": ["name", "arguments"],
                "properties": {"name": {"const": tool.name}, "arguments": tool.schema},
            }
            for tool in wanted
        ]  # fmt: skip
        schema = json.dumps(calls[0] if len(calls) == 1 else {"anyOf": calls})
    if schema is None:
        return None
    try:
        grammar: str = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
    except ValueError as error:
        raise Invalid(f"the JSON schema cannot be followed: {error}") from None
    if fault := LLMatcher.validate_grammar(grammar):
        raise Invalid(f"the JSON schema cannot be followed: {fault}")
    return grammar


def _likelihood(renderer: Renderer, reply: Reply) -> Likelihood:
    assert reply.token is not None
    assert reply.logprob is not None
    top = tuple((renderer.token_text(token), logprob) for token, logprob in reply.top)
    return Likelihood(renderer.token_text(reply.token), reply.logprob, top)


def _ms_since(began: float) -> int:
    return round((time.perf_counter() - began) * 1000)


@dataclass
class _Writer:
    """Tokens into text that is certain to belong neither to a stop sequence nor to a call of a tool."""

    decoder: Decoder
    stops: tuple[str, ...]
    tools: set[str] = field(default_factory=set)
    found: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    _held: str = ""
    _unsure: str = ""
    _has_words: bool = False

    def push(self, token: int) -> str:
        self._held += self.decoder.push(token)
        return self._words(self._release(final=False))

    def flush(self) -> str:
        """What is left: of words, if there are no `calls`."""
        self._held += self.decoder.flush()
        text = self._unsure + self._release(final=True)
        self.calls = [
            ToolCall(f"tooluse_{uuid.uuid4().hex[:22]}", name, arguments)
            for name, arguments in (read_calls(text, self.tools) if self.tools else [])
        ]
        return text

    def _words(self, text: str) -> str:
        if not self.tools:
            return text
        self._unsure += text
        count = len(self._unsure) if self.found else words_before_calls(self._unsure, not self._has_words)
        text, self._unsure = self._unsure[:count], self._unsure[count:]
        self._has_words = self._has_words or bool(text.strip())
        return text

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
