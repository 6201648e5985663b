"""The OpenAI-shaped door, through OpenAI's own client: the same models and jobs as through Bedrock's."""

import io
import json
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import openai
import pytest

from outcrop.demo.tickets import SYSTEM, tickets
from tests.conftest import Outcrop

BASE = "outcrop.pebble-v1:0"
ASKED: list[Any] = [{"role": "user", "content": "Write one line about a river."}]


@pytest.fixture(params=["/v1", "/openai/v1"])
def client(outcrop: Outcrop, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    with door(outcrop, request.param) as opened:
        yield opened


@pytest.fixture
def first(outcrop: Outcrop) -> Iterator[openai.OpenAI]:
    with door(outcrop) as opened:
        yield opened


def door(outcrop: Outcrop, path: str = "/v1") -> openai.OpenAI:
    return openai.OpenAI(base_url=outcrop.endpoint + path, api_key=outcrop.keys.bearer, max_retries=0, timeout=120)


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert BASE in [model.id for model in client.models.list()]
    assert client.models.retrieve(BASE).owned_by == "outcrop"
    with pytest.raises(openai.NotFoundError, match="nothing-v1"):
        client.models.retrieve("nothing-v1:0")


def test_a_chat_whole_and_streamed_is_the_same_as_through_converse(client: openai.OpenAI, outcrop: Outcrop) -> None:
    whole = client.chat.completions.create(model=BASE, messages=ASKED, temperature=0, max_tokens=20)
    chunks = list(
        client.chat.completions.create(
            model=BASE,
            messages=ASKED,
            temperature=0,
            max_tokens=20,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert whole.choices[0].message.content == text
    assert text == outcrop.ask(BASE, ASKED[0]["content"], inferenceConfig={"maxTokens": 20, "temperature": 0})
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_log_probabilities_are_told_and_belong_to_the_text(client: openai.OpenAI) -> None:
    told = client.chat.completions.create(
        model=BASE, messages=ASKED, temperature=0, max_tokens=8, logprobs=True, top_logprobs=3
    ).choices[0]
    assert told.logprobs is not None
    assert told.logprobs.content is not None
    assert "".join(token.token for token in told.logprobs.content).startswith(told.message.content or "?")
    for token in told.logprobs.content:
        assert token.logprob <= 0
        assert token.top_logprobs[0].token == token.token, "greedy takes the likeliest"
        assert len(token.top_logprobs) == 3


def test_an_answer_follows_its_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object", "additionalProperties": False, "required": ["team", "urgent", "parts"],
        "properties": {
            "team": {"enum": ["network", "billing"]}, "urgent": {"type": "boolean"},
            "parts": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 2},
        },
    }  # fmt: skip
    for seed in range(3):
        answer = client.chat.completions.create(
            model=BASE, messages=ASKED, seed=seed, temperature=1.5,
            response_format={"type": "json_schema", "json_schema": {"name": "ticket", "schema": schema, "strict": True}},
        )  # fmt: skip
        found = json.loads(answer.choices[0].message.content or "")
        assert found["team"] in ("network", "billing")
        assert isinstance(found["urgent"], bool)
        assert 1 <= len(found["parts"]) <= 2
    with pytest.raises(openai.BadRequestError, match="schema cannot be followed"):
        client.chat.completions.create(
            model=BASE, messages=ASKED,
            response_format={"type": "json_schema", "json_schema": {"name": "odd", "schema": {"type": "riddle"}}},
        )  # fmt: skip


def test_completions_and_what_is_refused(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=BASE, prompt="The river", max_tokens=5, temperature=0)
    assert answer.choices[0].text
    with pytest.raises(openai.BadRequestError, match="language model"):
        client.embeddings.create(model=BASE, input="a")
    with pytest.raises(openai.BadRequestError, match="n must be 1"):
        client.chat.completions.create(model=BASE, messages=ASKED, n=2)
    with pytest.raises(openai.BadRequestError, match="logit_bias is not supported"):
        client.chat.completions.create(model=BASE, messages=ASKED, logit_bias={"5": 1})
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client.chat.completions.create(model="no-such-model", messages=ASKED)


def test_a_wrong_key_is_refused(outcrop: Outcrop) -> None:
    with (
        openai.OpenAI(base_url=outcrop.endpoint + "/v1", api_key="sk-wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError, match="outcrop env"),
    ):
        stranger.models.list()


def test_files_come_back_as_they_were_and_lie_in_s3(client: openai.OpenAI, outcrop: Outcrop) -> None:
    data = b'{"a": 1}\n' * 100_000
    made = client.files.create(file=("rows one.jsonl", io.BytesIO(data)), purpose="fine-tune")
    assert made.bytes == len(data)
    assert made.filename == "rows one.jsonl"
    assert client.files.content(made.id).read() == data
    key = f"files/{made.id}/rows one.jsonl"
    assert outcrop.client("s3").get_object(Bucket="outcrop-openai", Key=key)["Body"].read() == data
    assert made.id in [one.id for one in client.files.list()]
    client.files.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("a.jsonl", b"x"), purpose="nonsense")  # type: ignore[arg-type]


def lines(count: int) -> bytes:
    rows = []
    for ticket in islice(tickets(3), count):
        row = json.loads(ticket.row)
        pairs = [(turn["role"], turn["content"]) for turn in row["messages"]]
        texts = [(role, content if isinstance(content, str) else content[0]["text"]) for role, content in pairs]
        messages = [{"role": "system", "content": SYSTEM}, *({"role": role, "content": text} for role, text in texts)]
        rows.append(json.dumps({"messages": messages}))
    return "\n".join(rows).encode()


@pytest.mark.slow
def test_upload_tune_watch_and_chat_and_boto3_sees_the_same_job(outcrop: Outcrop, first: openai.OpenAI) -> None:
    client = first
    training = client.files.create(file=("train.jsonl", lines(48)), purpose="fine-tune")
    checking = client.files.create(file=("check.jsonl", lines(16)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=BASE, training_file=training.id, validation_file=checking.id, suffix="desk", seed=3, metadata={"team": "desk"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 8}}},
    )  # fmt: skip
    assert job.status in ("validating_files", "running")
    while (job := client.fine_tuning.jobs.retrieve(job.id)).status not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.3)
    assert job.status == "succeeded", job.error
    assert job.training_file == training.id
    assert job.validation_file == checking.id
    assert job.hyperparameters.n_epochs == 2
    events = client.fine_tuning.jobs.list_events(job.id, limit=100).data
    assert any(event.message.startswith("Step 6/12: training loss=") for event in events)
    assert any("validation loss=" in event.message for event in events)
    checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert checkpoints[0].step_number > checkpoints[-1].step_number
    assert checkpoints[0].metrics.train_loss is not None
    assert checkpoints[0].metrics.valid_loss is not None
    assert b"training_loss" in client.files.content(job.result_files[0]).read()
    assert job.fine_tuned_model is not None
    answer = client.chat.completions.create(model=job.fine_tuned_model, messages=ASKED, max_tokens=10)
    assert answer.choices[0].message.content is not None
    bedrock = outcrop.client("bedrock")
    same = bedrock.get_model_customization_job(jobIdentifier=job.id)
    assert same["outputModelName"] == job.fine_tuned_model
    assert same["trainingDataConfig"]["s3Uri"].endswith("/train.jsonl")
    assert job.id in [one.id for one in client.fine_tuning.jobs.list()]
    with pytest.raises(openai.ConflictError, match="is Completed"):
        client.fine_tuning.jobs.cancel(job.id)
    assert client.models.delete(job.fine_tuned_model).deleted


def test_a_job_that_cannot_be_is_refused_in_words(first: openai.OpenAI) -> None:
    for more, words in (
        ({"training_file": "file-none"}, "no file 'file-none'"),
        ({"hyperparameters": {"rate": 1}}, "hyperparameters.rate is not known"),
        ({"method": {"type": "dpo"}}, "dpo is not implemented"),
        ({"integrations": [{"type": "wandb"}]}, "integrations are not implemented"),
    ):
        with pytest.raises((openai.BadRequestError, openai.NotFoundError), match=words):
            first.fine_tuning.jobs.create(**{"model": BASE, "training_file": "s3://none/a.jsonl", **more})  # type: ignore[arg-type]
