"""The invocation log: every acknowledged call has its record in S3, once, in Bedrock's form."""

import gzip
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.conftest import Outcrop, end, start

BASE = "outcrop.pebble-v1:0"
SHORT = {"maxTokens": 8, "temperature": 0}
NAME = re.compile(
    r"AWSLogs/\d{12}/BedrockModelInvocationLogs/us-east-1/\d{4}/\d\d/\d\d/\d\d/\d{8}T\d{9}Z_[0-9a-f]+\.json\.gz"
)


@pytest.fixture(scope="module")
def logging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcrop]:
    server = start(tmp_path_factory.mktemp("logging") / "home", OUTCROP_LOG_DELIVERY_S="0.3")
    configure(server)
    yield server
    end(server)


def configure(server: Outcrop, **more: Any) -> None:
    server.client("s3").create_bucket(Bucket="audit")
    place = {"bucketName": "audit", "keyPrefix": "calls"}
    server.client("bedrock").put_model_invocation_logging_configuration(loggingConfig={"s3Config": place, **more})


def text(words: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"text": words}]}]


def objects(server: Outcrop) -> dict[str, bytes]:
    s3 = server.client("s3")
    keys = [
        entry["Key"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket="audit")
        for entry in page.get("Contents", [])
    ]
    return {key: s3.get_object(Bucket="audit", Key=key)["Body"].read() for key in keys}


def records(server: Outcrop) -> list[dict[str, Any]]:
    found = objects(server)
    return [
        json.loads(line)
        for key, data in found.items()
        if "/data/" not in key
        for line in gzip.decompress(data).splitlines()
    ]


def record_of(server: Outcrop, request_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while True:
        found = [record for record in records(server) if record["requestId"] == request_id]
        if found:
            assert len(found) == 1
            return found[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_configuration_is_put_got_and_deleted(logging: Outcrop) -> None:
    bedrock = logging.client("bedrock")
    config = bedrock.get_model_invocation_logging_configuration()["loggingConfig"]
    assert config["s3Config"] == {"bucketName": "audit", "keyPrefix": "calls"}
    assert config["textDataDeliveryEnabled"] is True
    bedrock.delete_model_invocation_logging_configuration()
    assert "loggingConfig" not in bedrock.get_model_invocation_logging_configuration()
    answer = logging.client("bedrock-runtime").converse(modelId=BASE, messages=text("unlogged"), inferenceConfig=SHORT)
    configure(logging)
    time.sleep(1.5)
    assert answer["ResponseMetadata"]["RequestId"] not in [record["requestId"] for record in records(logging)]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"cloudWatchConfig": {"logGroupName": "g", "roleArn": "arn:aws:iam::123456789012:role/r"}},
            "has no CloudWatch",
        ),
        ({"textDataDeliveryEnabled": True}, "s3Config is missing"),
        ({"s3Config": {"bucketName": "nowhere"}}, "no bucket 'nowhere'"),
    ],
)
def test_what_cannot_be_done_is_said(logging: Outcrop, config: dict[str, Any], said: str) -> None:
    with pytest.raises(ClientError, match=said) as refused:
        logging.client("bedrock").put_model_invocation_logging_configuration(loggingConfig=config)
    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_a_conversation_is_logged_as_it_was_asked_and_answered(logging: Outcrop) -> None:
    answer = logging.client("bedrock-runtime").converse(
        modelId=BASE, messages=text("Name a river."), system=[{"text": "Be brief."}], inferenceConfig=SHORT,
        requestMetadata={"team": "maps", "stage": "test"},
    )  # fmt: skip
    record = record_of(logging, answer["ResponseMetadata"]["RequestId"])
    assert record["schemaType"] == "ModelInvocationLog"
    assert record["operation"] == "Converse"
    assert record["modelId"] == BASE
    assert record["identity"]["arn"].startswith("arn:aws:iam::")
    assert record["requestMetadata"] == {"team": "maps", "stage": "test"}
    given = record["input"]["inputBodyJson"]
    assert given == {"messages": text("Name a river."), "system": [{"text": "Be brief."}], "inferenceConfig": SHORT}
    said = record["output"]["outputBodyJson"]
    assert said["output"] == answer["output"]
    assert said["usage"] == answer["usage"]
    assert record["input"]["inputTokenCount"] == answer["usage"]["inputTokens"]
    assert record["output"]["outputTokenCount"] == answer["usage"]["outputTokens"]
    assert any(NAME.search(key) for key in objects(logging))


def test_streams_are_logged_whole_and_native_bodies_as_they_are(logging: Outcrop) -> None:
    runtime = logging.client("bedrock-runtime")
    answer = runtime.converse_stream(modelId=BASE, messages=text("Name a sea."), inferenceConfig=SHORT)
    streamed = "".join(
        event["contentBlockDelta"]["delta"]["text"] for event in answer["stream"] if "contentBlockDelta" in event
    )
    record = record_of(logging, answer["ResponseMetadata"]["RequestId"])
    assert record["output"]["outputBodyJson"]["output"]["message"]["content"] == [{"text": streamed}]

    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]}
    whole = runtime.invoke_model(modelId=BASE, body=json.dumps(body))
    record = record_of(logging, whole["ResponseMetadata"]["RequestId"])
    assert record["operation"] == "InvokeModel"
    assert record["input"]["inputBodyJson"] == body
    assert record["output"]["outputBodyJson"] == json.loads(whole["body"].read())

    chunks = runtime.invoke_model_with_response_stream(modelId=BASE, body=json.dumps(body))
    seen = [json.loads(event["chunk"]["bytes"]) for event in chunks["body"]]
    record = record_of(logging, chunks["ResponseMetadata"]["RequestId"])
    kept = record["output"]["outputBodyJson"]
    assert [chunk["type"] for chunk in kept][:2] == ["message_start", "content_block_start"]
    assert "".join(c["delta"].get("text", "") for c in kept if c["type"] == "content_block_delta") == "".join(
        c["delta"].get("text", "") for c in seen if c["type"] == "content_block_delta"
    )
    assert kept[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == record["output"]["outputTokenCount"]


def test_the_second_door_is_logged_too(logging: Outcrop) -> None:
    with openai.OpenAI(base_url=f"{logging.endpoint}/v1", api_key=logging.keys.bearer, max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            model=BASE, messages=[{"role": "user", "content": "Hi"}], max_tokens=6, metadata={"team": "chat"}
        )
        record = record_of(logging, raw.headers["x-amzn-requestid"])
        assert record["operation"] == "ChatCompletions"
        assert record["requestMetadata"] == {"team": "chat"}
        assert (
            record["output"]["outputBodyJson"]["choices"][0]["message"]["content"]
            == raw.parse().choices[0].message.content
        )
        stream = client.chat.completions.create(
            model=BASE, messages=[{"role": "user", "content": "streamed once"}], max_tokens=6, stream=True
        )
        said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    time.sleep(1.5)
    found = [r for r in records(logging) if "streamed once" in json.dumps(r["input"])]
    assert [r["output"]["outputBodyJson"]["choices"][0]["message"]["content"] for r in found] == [said]


def test_a_refused_call_is_logged_by_its_code(logging: Outcrop) -> None:
    with pytest.raises(ClientError) as refused:
        logging.client("bedrock-runtime").converse(modelId="nobody.knows-v1:0", messages=text("Hello"))
    record = record_of(logging, refused.value.response["ResponseMetadata"]["RequestId"])
    assert record["errorCode"] == "ResourceNotFoundException"
    assert "output" not in record


def test_a_large_body_lies_in_an_object_of_its_own(logging: Outcrop) -> None:
    long = "word " * 40_000
    with pytest.raises(ClientError, match="too long") as refused:
        logging.client("bedrock-runtime").converse(modelId=BASE, messages=text(long))
    record = record_of(logging, refused.value.response["ResponseMetadata"]["RequestId"])
    assert "inputBodyJson" not in record["input"]
    bucket, _, key = record["input"]["inputBodyS3Path"].removeprefix("s3://").partition("/")
    assert "/data/" in key
    body = logging.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    assert json.loads(gzip.decompress(body))["messages"] == text(long)


def test_a_body_of_several_lines_is_one_record(logging: Outcrop) -> None:
    body = {"prompt": "Name a river.", "max_gen_len": 5}
    answer = logging.client("bedrock-runtime").invoke_model(modelId=BASE, body=json.dumps(body, indent=2))
    assert record_of(logging, answer["ResponseMetadata"]["RequestId"])["input"]["inputBodyJson"] == body


def test_metadata_out_of_its_limits_is_refused(logging: Outcrop) -> None:
    with openai.OpenAI(base_url=f"{logging.endpoint}/v1", api_key=logging.keys.bearer, max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match="requestMetadata"):
            client.chat.completions.create(
                model=BASE, messages=[{"role": "user", "content": "Hi"}], metadata={"key": "v" * 300}
            )


@pytest.mark.slow
def test_kill_9_under_load_loses_no_acknowledged_record_and_doubles_none(tmp_path: Path) -> None:
    home = tmp_path / "home"
    server = start(home, OUTCROP_LOG_DELIVERY_S="0.4")
    configure(server)
    server.ask(BASE, "warm up", inferenceConfig=SHORT)
    acknowledged: list[str] = []
    is_over = False

    def call(client: int) -> None:
        runtime = server.client("bedrock-runtime")
        number = 0
        while not is_over:
            number += 1
            try:
                answer = runtime.converse(
                    modelId=BASE, messages=text(f"{client} asks {number}"), inferenceConfig={"maxTokens": 4}
                )
            except (BotoCoreError, ClientError, OSError):
                continue
            acknowledged.append(answer["ResponseMetadata"]["RequestId"])

    with ThreadPoolExecutor(8) as pool:
        for client in range(8):
            pool.submit(call, client)
        time.sleep(3)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        is_over = True
    assert server.process.stdout is not None
    server.process.stdout.close()
    assert len(acknowledged) > 50
    again = start(home, OUTCROP_LOG_DELIVERY_S="0.3")
    deadline = time.monotonic() + 20
    while list((home / "journal").glob("*.closed")) and time.monotonic() < deadline:
        time.sleep(0.2)
    kept = [record["requestId"] for record in records(again)]
    end(again)
    assert set(acknowledged) <= set(kept)
    assert len(kept) == len(set(kept))
