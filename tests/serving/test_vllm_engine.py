"""The vllm engine gives what the embedded engine gives: through the stand-in, and through vLLM where VLLM names its command."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from llguidance import LLMatcher

from outcrop.errors import ModelFailed
from outcrop.rendering import Renderer
from outcrop.serving.engines.supervisor import Engines, Options
from outcrop.serving.engines.torch_engine import TorchEngine
from outcrop.serving.protocol import Generate, Load, Reply, Score
from tests.models import make_llama
from tests.serving.test_torch_engine import PROMPTS, adapters_of, engine_with, request, together

pytestmark = pytest.mark.slow
STAND_IN = f"{sys.executable} -m outcrop.serving.engines.vllm_stand_in"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("vllm") / "base", width=256)  # vLLM on processors wants wide heads


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return adapters_of(base, tmp_path_factory)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    command = os.environ.get("VLLM", STAND_IN)
    made = Engines(tmp_path_factory.mktemp("logs"), Options(kind="vllm", slots=4, vllm=command))
    yield made
    made.end_all()


def replies(engines: Engines, base: Path, asked: Generate | Load | Score) -> list[Reply]:
    return list(engines.ask(base, asked))


def test_greedy_answers_with_and_without_adapters_are_the_embedded_engines(
    engines: Engines, base: Path, adapters: list[str]
) -> None:
    asked = [request(prompt, adapter) for prompt in PROMPTS for adapter in (None, *adapters)]
    expected = together(engine_with(base, adapters), asked)
    for one, answer in zip(asked, expected, strict=True):
        told = replies(engines, base, one)
        assert [reply.token for reply in told] == answer
        assert [reply.done for reply in told] == [""] * 11 + ["length"]


def test_a_stop_token_ends_an_answer_and_is_not_told(engines: Engines, base: Path) -> None:
    whole = [reply.token for reply in replies(engines, base, request(PROMPTS[0]))]
    stop = whole[4]
    assert stop is not None
    asked = Generate(tokens=PROMPTS[0], max_tokens=12, stop_tokens=[stop])
    told = replies(engines, base, asked)
    assert [reply.token for reply in told[:-1]] == whole[: whole.index(stop)]
    assert told[-1] == Reply(done="stop")


def test_losses_and_log_probabilities_are_the_embedded_engines(
    engines: Engines, base: Path, adapters: list[str]
) -> None:
    for adapter in (None, adapters[0]):
        score = Score([*PROMPTS[2]], list(range(1, len(PROMPTS[2]))), adapter)
        assert replies(engines, base, score)[0].loss == pytest.approx(
            engine_with(base, adapters).score(score), rel=1e-3
        )
    asked = Generate(tokens=PROMPTS[0], max_tokens=2, stop_tokens=[], logprobs=3)
    first = replies(engines, base, asked)[0]
    assert first.logprob is not None
    assert first.top[0] == (first.token, pytest.approx(first.logprob, abs=1e-4))
    assert first.token is not None
    cost = TorchEngine(base, 1).score(Score([*PROMPTS[0], first.token], [len(PROMPTS[0])]))
    assert first.logprob == pytest.approx(-cost, abs=1e-3)


def test_a_grammar_is_followed(engines: Engines, base: Path) -> None:
    grammar = LLMatcher.grammar_from_json_schema('{"enum": ["yes", "no"]}', overrides={"whitespace_flexible": False})
    renderer = Renderer(base)
    asked = Generate(tokens=PROMPTS[0], max_tokens=20, stop_tokens=sorted(renderer.stop_tokens), grammar=grammar)
    told = replies(engines, base, asked)
    assert renderer.text([reply.token for reply in told if reply.token is not None]) in ('"yes"', '"no"')


def test_what_vllm_refuses_is_told_and_the_next_request_is_answered(
    engines: Engines, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelFailed, match="vLLM answers"):
        replies(engines, base, Load(str(tmp_path / "nothing")))
    assert replies(engines, base, Load())[0].done == "ready"


def test_a_client_that_leaves_frees_the_place(engines: Engines, base: Path) -> None:
    answer = engines.ask(base, Generate(tokens=PROMPTS[0], max_tokens=900, stop_tokens=[]))
    next(answer)
    answer.close()  # type: ignore[attr-defined]
    assert len(replies(engines, base, request(PROMPTS[1], most=3))) == 3


def test_the_server_ends_with_its_engine(tmp_path: Path, base: Path) -> None:
    made = Engines(tmp_path, Options(kind="vllm", slots=1, vllm=STAND_IN))
    assert replies(made, base, Load())[0].done == "ready"

    def servers() -> list[str]:
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        return [line.decode() for line in lines if b"vllm_stand_in" in line and str(base).encode() in line]

    before = len(servers())
    made.end_all()
    for _ in range(50):
        if len(servers()) < before:
            return
        time.sleep(0.1)
    raise AssertionError("the server outlives its engine")
