"""Whatever users get wrong is answered by a declared error or a failed job that says where and what to do."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import ROLE, Outcrop

GOOD = json.dumps({"prompt": "a", "completion": "b"})
BASE = "outcrop.pebble-v1:0"


def create(outcrop: Outcrop, **changes: Any) -> Any:
    request = {
        "jobName": "bad", "customModelName": "bad", "roleArn": ROLE, "baseModelIdentifier": BASE,
        "trainingDataConfig": {"s3Uri": "s3://bad/train.jsonl"}, "outputDataConfig": {"s3Uri": "s3://bad/out"},
    }  # fmt: skip
    return outcrop.client("bedrock").create_model_customization_job(**(request | changes))


@pytest.fixture(scope="module", autouse=True)
def bucket(outcrop: Outcrop) -> None:
    outcrop.put_lines("s3://bad/train.jsonl", [GOOD] * 7 + ['{"prompt": "x"}', "{oops"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hyperParameters": {"epochs": "3"}}, "hyperParameters.epochs is not known; the names are epochCount"),
        ({"hyperParameters": {"epochCount": "3.5"}}, "epochCount is '3.5'; it must be a whole number"),
        ({"hyperParameters": {"epochCount": "99"}}, "epochCount is 99; it must lie between 1 and 10"),
        ({"hyperParameters": {"learningRate": "nan"}}, "learningRate is nan"),
        ({"hyperParameters": {"method": "magic"}}, "method is 'magic'; it must be one of lora, full"),
        ({"hyperParameters": {"method": "full", "loraRank": "4"}}, "loraRank is only used with method lora"),
        ({"hyperParameters": {"learningRate": "0.001", "learningRateMultiplier": "1"}}, "give one of them"),
        ({"baseModelIdentifier": "no.such-model-v1:0"}, "There is no base model 'no.such-model-v1:0'. The catalogue has outcrop.pebble"),
        ({"outputDataConfig": {"s3Uri": "s3://missing-bucket/out"}}, "there is no bucket 'missing-bucket'"),
        ({"trainingDataConfig": {}}, "trainingDataConfig must have s3Uri"),
        ({"customizationType": "REINFORCEMENT_FINE_TUNING"}, "customizationType REINFORCEMENT_FINE_TUNING is not implemented"),
        ({"customModelKmsKeyId": "arn:aws:kms:us-east-1:123456789012:key/12345678-1234-1234-1234-123456789012"}, "does not encrypt"),
        ({"jobName": "bad name !!"}, "Value 'bad name !!' at 'jobName' failed to satisfy constraint"),
        ({"jobTags": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}, "comes twice"),
        ({"validationDataConfig": {"validators": [{"s3Uri": "s3://bad/v"}]}, "hyperParameters": {"evalPercentage": "20"}}, "evalPercentage is only used without"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_work_is_refused_at_once(outcrop: Outcrop, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError) as caught:
        create(outcrop, **changes)
    assert message in str(caught.value)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 404)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("lines", [GOOD] * 7 + ['{"prompt": "x"}', "{oops"], "line 8: completion is missing. line 9, column"),
        ("empty", [], "the file is empty"),
        ("single", [GOOD], "there is 1 row; at least 8 are needed"),
        ("long", [GOOD] * 8 + [json.dumps({"prompt": "word " * 9000, "completion": "b"})], "line 9: has"),
    ],
)
def test_a_file_that_cannot_be_learned_fails_the_job_with_its_lines(
    outcrop: Outcrop, name: str, lines: list[str], message: str
) -> None:
    outcrop.put_lines(f"s3://bad/{name}.jsonl", lines)
    job = outcrop.tune(
        f"bad-{name}",
        trainingDataConfig={"s3Uri": f"s3://bad/{name}.jsonl"},
        outputDataConfig={"s3Uri": "s3://bad/out"},
    )
    assert job["status"] == "Failed"
    assert message in job["failureMessage"]
    assert f"s3://bad/{name}.jsonl" in job["failureMessage"]
    assert "outputModelArn" not in job
    statuses = [
        job["statusDetails"][phase]["status"]
        for phase in ("validationDetails", "dataProcessingDetails", "trainingDetails")
    ]
    assert statuses in (["Failed", "NotStarted", "NotStarted"], ["Completed", "Failed", "NotStarted"])


def test_a_missing_object_fails_the_job_and_says_what_is_near(outcrop: Outcrop) -> None:
    job = outcrop.tune(
        "bad-missing", trainingDataConfig={"s3Uri": "s3://bad/trai"}, outputDataConfig={"s3Uri": "s3://bad/out"}
    )
    assert "s3://bad/trai: there is no such object; under that prefix there are train.jsonl" in job["failureMessage"]


def test_names_and_tokens_are_used_once(outcrop: Outcrop) -> None:
    first = create(outcrop, jobName="twice", customModelName="twice", clientRequestToken="token-1")
    assert (
        create(outcrop, jobName="twice", customModelName="twice", clientRequestToken="token-1")["jobArn"]
        == first["jobArn"]
    )
    with pytest.raises(ClientError, match="ConflictException.*used before with other parameters"):
        create(outcrop, jobName="other", customModelName="other", clientRequestToken="token-1")
    bedrock = outcrop.client("bedrock")
    outcrop.wait(lambda: bedrock.get_model_customization_job(jobIdentifier="twice"), {"Failed"})
    with pytest.raises(ClientError, match="ConflictException.*already a job named twice"):
        create(outcrop, jobName="twice", customModelName="another")


@pytest.mark.parametrize(
    ("call", "given"),
    [
        (
            "get_model_customization_job",
            {
                "jobIdentifier": "arn:aws:bedrock:us-east-1:123456789012:model-customization-job/outcrop.pebble-v1:0/abcdefghijkl"
            },
        ),
        ("get_custom_model", {"modelIdentifier": "nobody"}),
        ("delete_custom_model", {"modelIdentifier": "nobody"}),
        ("get_provisioned_model_throughput", {"provisionedModelId": "nobody"}),
        ("get_custom_model_deployment", {"customModelDeploymentIdentifier": "nobody"}),
        ("get_foundation_model", {"modelIdentifier": "meta.nothing-v1:0"}),
        (
            "list_tags_for_resource",
            {"resourceARN": "arn:aws:bedrock:us-east-1:123456789012:custom-model/outcrop.pebble-v1:0/abcdefghijkl"},
        ),
    ],
)
def test_what_is_not_there_is_not_found(outcrop: Outcrop, call: str, given: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(outcrop.client("bedrock"), call)(**given)
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"prompt": 3}', "prompt is 3; it must be str"),
        (b'{"prompt": "a", "temperature": 7}', "temperature is 7; it must lie between 0 and 1"),
        (b'{"prompt": "a", "surprise": 1}', "surprise is not supported here"),
        (b'{"anthropic_version": "bedrock-2023-05-31", "messages": []}', "max_tokens is required"),
        (b'{"messages": [{"role": "user", "content": [{"type": "image"}]}]}', "this model reads text only"),
        (b'{"messages": [{"role": "assistant", "content": "x"}]}', "roles must alternate"),
        (b"{}", "expected prompt or messages"),
    ],
)
def test_a_native_body_that_makes_no_sense_is_refused_in_words(outcrop: Outcrop, body: bytes, message: str) -> None:
    with pytest.raises(ClientError, match="ValidationException") as caught:
        outcrop.client("bedrock-runtime").invoke_model(modelId=BASE, body=body)
    assert message in str(caught.value)


def test_a_body_that_is_too_large_is_refused(outcrop: Outcrop) -> None:
    with pytest.raises(ClientError, match="at most 25000000 are allowed"):
        outcrop.client("bedrock-runtime").invoke_model(modelId=BASE, body=b"x" * 26_000_000)


def test_an_operation_that_is_not_done_says_so(outcrop: Outcrop) -> None:
    with pytest.raises(ClientError, match="ValidationException.*CreateGuardrail is not implemented by Outcrop"):
        outcrop.client("bedrock").create_guardrail(name="g", blockedInputMessaging="a", blockedOutputsMessaging="b")
    with pytest.raises(ClientError, match="ListKnowledgeBases is not implemented"):
        outcrop.client("bedrock-agent").list_knowledge_bases()


def test_wrong_keys_are_refused(outcrop: Outcrop) -> None:
    for service, call in (
        ("bedrock", "list_foundation_models"),
        ("s3", "list_buckets"),
        ("sts", "get_caller_identity"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            getattr(outcrop.client(service, secret="wrong"), call)()
        with pytest.raises(ClientError, match="AccessDenied"):
            getattr(outcrop.client(service, access_key="AKIANOBODY"), call)()
