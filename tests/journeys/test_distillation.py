"""Distillation through unmodified boto3, in the shape of AWS's published notebooks: from a prompts file, and from logs."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from outcrop.demo.tickets import SYSTEM, tickets
from tests.conftest import ROLE, Outcrop, end, start

pytestmark = pytest.mark.slow
UBER = Path(__file__).parents[2].parent / "shared/data/aws/uber10k_prompts_part1.jsonl.gz"
# What the notebooks name, and what stands behind it here.
TEACHER, STUDENT = "meta.llama3-1-70b-instruct-v1:0", "meta.llama3-1-8b-instruct-v1:0:128k"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcrop]:
    home = tmp_path_factory.mktemp("distillation") / "home"
    made = start(home, OUTCROP_LOG_DELIVERY_S="0.3", OUTCROP_MIN_DISTILLATION_PROMPTS="20")
    from outcrop.registry import Registry
    from outcrop.storage import Storage

    registry = Registry(Storage(home))
    for name in (TEACHER, STUDENT.rpartition(":")[0]):
        registry.alias_base(name, "outcrop.pebble-v1:0")
    made.client("s3").create_bucket(Bucket="desk")
    yield made
    end(made)


def prompt(text: str, **more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": "bedrock-conversation-2024", "messages": [{"role": "user", "content": [{"text": text}]}], **more
    }  # fmt: skip


def distill(server: Outcrop, name: str, training: dict[str, Any], tokens: int = 120, **more: Any) -> Any:
    return server.tune(
        name, baseModelIdentifier=STUDENT, customizationType="DISTILLATION", trainingDataConfig=training,
        outputDataConfig={"s3Uri": "s3://desk/output/"},
        customizationConfig={"distillationConfig": {"teacherModelConfig": {"teacherModelIdentifier": TEACHER, "maxResponseLengthForInference": tokens}}},
        **more,
    )  # fmt: skip


def output(server: Outcrop, job: Any, name: str) -> list[Any]:
    key = f"output/model-customization-job-{job['jobArn'].rpartition('/')[2]}/{name}"
    body = server.client("s3").get_object(Bucket="desk", Key=key)["Body"].read()
    return [json.loads(body)] if name.endswith("summary.json") else [json.loads(line) for line in body.splitlines()]


def test_from_a_prompts_file(server: Outcrop) -> None:
    system = [{"text": SYSTEM}]
    asked = [one.text for one, _ in zip(tickets(5), range(40), strict=False)]
    rows: list[Any] = [prompt(text, system=system) for text in asked]
    rows += [
        prompt(asked[0], system=system), prompt("x", schemaVersion="bedrock-conversion-2024"), prompt(" "),
        {**prompt("x"), "messages": [{"role": "assistant", "content": [{"text": "x"}]}]}, "not json",
        {**prompt("x"), "messages": [{"role": "user", "content": [{"text": "a"}, {"text": "b"}]}]},
        {**prompt("x"), "messages": [{"role": ("user", "assistant")[n % 2], "content": [{"text": f"{n}"}]} for n in range(4)]},
    ]  # fmt: skip
    server.put_lines("s3://desk/prompts.jsonl", [row if isinstance(row, str) else json.dumps(row) for row in rows])
    job = distill(server, "from-prompts", {"s3Uri": "s3://desk/prompts.jsonl"})
    assert job["status"] == "Completed", job
    assert job["customizationType"] == "DISTILLATION"
    assert job["customizationConfig"]["distillationConfig"]["teacherModelConfig"]["teacherModelIdentifier"] == TEACHER

    insights = output(server, job, "prompt_insights/prompt_insights.jsonl")
    rejected = {one["place"]: one["reason"] for one in insights if one["status"] == "rejected"}
    for line, said in {41: "came before", 42: "must be 'bedrock-conversation-2024'", 43: "is empty", 44: "must be 'user'", 45: "not a JSON object",
                       46: "has 2 parts", 47: "has 4 messages"}.items():  # fmt: skip
        assert said in rejected[f"line {line}"]
    (summary,) = output(server, job, "prompt_insights/summary.json")
    assert summary["accepted"] + summary["rejected"] == len(rows)

    rows = output(server, job, "synthetic_data/training_data.jsonl")
    assert len(rows) == summary["accepted"]
    first = rows[0]
    said = server.ask(
        TEACHER,
        first["messages"][0]["content"][0]["text"],
        system=first["system"],
        inferenceConfig={"maxTokens": 120, "temperature": 0},
    )
    assert first["messages"][1]["content"][0]["text"] == said
    assert output(server, job, "synthetic_data/sample.jsonl")[0] == first
    key = f"output/model-customization-job-{job['jobArn'].rpartition('/')[2]}/training_artifacts/step_wise_training_metrics.csv"
    assert server.client("s3").get_object(Bucket="desk", Key=key)["Body"].read().startswith(b"step_number,epoch_number")

    bedrock = server.client("bedrock")
    model = bedrock.get_custom_model(modelIdentifier=job["outputModelArn"])
    assert model["trainingDataConfig"] == {"s3Uri": "s3://desk/prompts.jsonl"}
    throughput = bedrock.create_provisioned_model_throughput(
        modelUnits=1, provisionedModelName="distilled", modelId=job["outputModelArn"]
    )["provisionedModelArn"]
    server.wait(
        lambda: bedrock.get_provisioned_model_throughput(provisionedModelId=throughput), {"InService", "Failed"}
    )
    assert server.ask(throughput, "Hello", inferenceConfig={"maxTokens": 5}) is not None
    bedrock.delete_provisioned_model_throughput(provisionedModelId=throughput)


def test_from_logs_with_the_answers_that_were_logged_and_with_new_ones(server: Outcrop) -> None:
    bedrock, runtime = server.client("bedrock"), server.client("bedrock-runtime")
    server.client("s3").create_bucket(Bucket="calls")
    bedrock.put_model_invocation_logging_configuration(
        loggingConfig={
            "s3Config": {"bucketName": "calls", "keyPrefix": "teacher"}, "textDataDeliveryEnabled": True,
            "imageDataDeliveryEnabled": True, "embeddingDataDeliveryEnabled": True,
        }
    )  # fmt: skip
    asked = [one.text for one, _ in zip(tickets(6), range(40), strict=False)]

    def call(text: str, **metadata: str) -> str:
        answer = runtime.converse(
            modelId=TEACHER, messages=[{"role": "user", "content": [{"text": text}]}],
            inferenceConfig={"maxTokens": 60, "temperature": 0.1, "topP": 0.9}, requestMetadata=metadata,
        )  # fmt: skip
        return str(answer["output"]["message"]["content"][0]["text"]) if answer["stopReason"] == "end_turn" else ""

    wanted = {text: call(text, job_type="Uber10K", use_case="RAG") for text in asked}
    for text in asked[:5]:
        call(f"Other: {text}", job_type="other", use_case="RAG")
    runtime.converse(
        modelId="outcrop.pebble-v1:0",
        messages=[{"role": "user", "content": [{"text": "hi"}]}],
        inferenceConfig={"maxTokens": 5},
        requestMetadata={"job_type": "Uber10K"},
    )

    def training(filters: dict[str, Any], uses_answers: bool) -> dict[str, Any]:
        source = {"s3Uri": "s3://calls/teacher/AWSLogs"}
        return {
            "invocationLogsConfig": {
                "usePromptResponse": uses_answers,
                "invocationLogSource": source,
                "requestMetadataFilters": filters,
            }
        }

    def logged() -> bool:
        keys = server.client("s3").list_objects_v2(Bucket="calls").get("Contents", [])
        lines = [
            line
            for entry in keys
            for line in gzip.decompress(
                server.client("s3").get_object(Bucket="calls", Key=entry["Key"])["Body"].read()
            ).splitlines()
        ]
        return len(lines) >= 46

    server.wait(lambda: {"status": "there" if logged() else "waiting"}, {"there"}, 20)
    job = distill(server, "logged-answers", training({"equals": {"job_type": "Uber10K"}}, True))
    assert job["status"] == "Completed", job
    rows = output(server, job, "synthetic_data/training_data.jsonl")
    learned = {row["messages"][0]["content"][0]["text"]: row["messages"][1]["content"][0]["text"] for row in rows}
    assert learned == {text: answer for text, answer in wanted.items() if answer}
    reasons = [one.get("reason", "") for one in output(server, job, "prompt_insights/prompt_insights.jsonl")]
    assert any("not by the teacher" in reason for reason in reasons)
    assert not any("Other:" in text for text in learned)

    both = {"andAll": [{"equals": {"job_type": "Uber10K"}}, {"notEquals": {"use_case": "chat"}}]}
    job = distill(server, "new-answers", training(both, False))
    assert job["status"] == "Completed", job
    made = output(server, job, "synthetic_data/provenance.jsonl")
    assert {one["from"] for one in made} == {"teacher"}
    assert all(one["requestId"] and one["place"].startswith("s3://calls/teacher/AWSLogs/") for one in made)

    job = distill(server, "none-left", training({"orAll": [{"equals": {"job_type": "nobody"}}]}, True))
    assert job["status"] == "Failed"
    assert "at least 20 are needed" in job["failureMessage"]
    bedrock.delete_model_invocation_logging_configuration()


@pytest.mark.skipif(not UBER.is_file(), reason="the shared data is not here")
def test_the_notebooks_prompts(server: Outcrop) -> None:
    rows = [json.loads(line) for line in gzip.decompress(UBER.read_bytes()).splitlines()]
    server.put_lines("s3://desk/uber.jsonl", [json.dumps(prompt(row["prompt"])) for row in rows])
    job = distill(server, "uber10k", {"s3Uri": "s3://desk/uber.jsonl"}, tokens=200, hyperParameters={"epochCount": "1"})
    assert job["status"] == "Completed", job
    (summary,) = output(server, job, "prompt_insights/summary.json")
    assert summary["accepted"] + summary["rejected"] == 100
    assert summary["accepted"] >= 8  # the starter model seldom ends an answer on a page of a report


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"customizationConfig": None}, "teacherModelConfig is missing"),
        ({"trainingDataConfig": {}}, "must have s3Uri or, for a distillation"),
        ({"customizationType": "FINE_TUNING"}, "is for customizationType DISTILLATION"),
        ({"hyperParameters": {"distillationPairs": "5"}}, "distillationPairs is 5"),
    ],
)  # fmt: skip
def test_what_cannot_be_distilled_is_refused_at_once(server: Outcrop, change: dict[str, Any], said: str) -> None:
    request: dict[str, Any] = {
        "jobName": "refused", "customModelName": "refused", "roleArn": ROLE, "baseModelIdentifier": STUDENT, "customizationType": "DISTILLATION",
        "trainingDataConfig": {"s3Uri": "s3://desk/prompts.jsonl"}, "outputDataConfig": {"s3Uri": "s3://desk/output"},
        "customizationConfig": {"distillationConfig": {"teacherModelConfig": {"teacherModelIdentifier": TEACHER}}},
    }  # fmt: skip
    request = {name: value for name, value in {**request, **change}.items() if value is not None}
    with pytest.raises(ClientError, match=said) as refused:
        server.client("bedrock").create_model_customization_job(**request)
    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_a_teacher_that_is_not_there_is_not_found(server: Outcrop) -> None:
    with pytest.raises(ClientError) as refused:
        server.client("bedrock").create_model_customization_job(
            jobName="t", customModelName="t", roleArn=ROLE, baseModelIdentifier=STUDENT, customizationType="DISTILLATION",
            trainingDataConfig={"s3Uri": "s3://desk/prompts.jsonl"}, outputDataConfig={"s3Uri": "s3://desk/output"},
            customizationConfig={"distillationConfig": {"teacherModelConfig": {"teacherModelIdentifier": "meta.llama9-v1:0"}}},
        )  # fmt: skip
    assert refused.value.response["Error"]["Code"] == "ResourceNotFoundException"
